-- ARGV id gen code message status   -> state the job was in, 'unknown', or 'stale': a newer generation of the job is here,
-- nothing was done. Where this generation has not come yet, a tombstone is left.
begin_freeing()
local id = ARGV[1]
local job = job_fields(id, 'state', 'model', 'tenant', 'lane', 'est', 'size', 'gen', 'attempt', 'reply', 'kept', 'replica',
  'expires', 'token')
if not job.state or num(job.gen) < num(ARGV[2]) then
  local gen = math.max(num(ARGV[2]), num(redis.call('GET', P .. 'tomb:' .. id)))
  redis.call('SET', P .. 'tomb:' .. id, gen, 'EX', TOMB_TTL)
end
if not job.state then return 'unknown' end
if num(job.gen) > num(ARGV[2]) then return 'stale' end
if job.state == 'queued' then
  leave(id, job.model, job.tenant, job.lane, num(job.est), num(job.size))
elseif job.state == 'running' then
  redis.call('XADD', P .. 'ctl:' .. job.replica, 'MAXLEN', '~', WAKES, '*', 'cancel', id)
  redis.call('EXPIRE', P .. 'ctl:' .. job.replica, CTL_TTL)
elseif job.state ~= 'scheduled' then
  return job.state
end
local failure = cjson.encode({code = ARGV[3], message = ARGV[4], status = num(ARGV[5]), param = cjson.null})
-- Of a run the replica tells what it has used when it has stopped it.
settle_state(id, job, 'cancelled', job.token and {'error', failure, 'owes', job.token} or {'error', failure})
reply(job.reply, frame(id, 'E', '', failure))
return job.state
