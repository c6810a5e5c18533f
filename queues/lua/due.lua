-- What the clock asks for: jobs whose pause before another attempt is over are queued, and waiting jobs whose deadline
-- has passed expire. ARGV limit   -> {id, state, model, bell wanted ...}
begin_freeing()
local time, limit, answer = text(now()), num(ARGV[1]), {}
local function note(id, state, model, bell)
  for _, value in ipairs({id, state, model or '', bell}) do answer[#answer + 1] = value end
end
local FIELDS = {'state', 'model', 'tenant', 'lane', 'est', 'size', 'score', 'gen', 'attempt', 'reply', 'kept', 'expires'}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'expiry', '-inf', time, 'LIMIT', 0, limit)) do
  local job = job_fields(id, unpack(FIELDS))
  if job.state == 'queued' or job.state == 'scheduled' then
    if job.state == 'queued' then leave(id, job.model, job.tenant, job.lane, num(job.est), num(job.size)) end
    expire(id, job)
    note(id, 'expired', job.model, 0)
  else
    redis.call('ZREM', P .. 'expiry', id) -- it runs; should it come back, it expires then
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'later', '-inf', time, 'LIMIT', 0, limit)) do
  local job = job_fields(id, unpack(FIELDS))
  redis.call('ZREM', P .. 'later', id)
  if job.state == 'scheduled' then
    redis.call('HSET', P .. 'job:' .. id, 'state', 'queued')
    redis.call('HDEL', P .. 'job:' .. id, 'due')
    enter(id, job.model, job.tenant, job.lane, num(job.est), num(job.size), num(job.score))
    tell(job, id, 'state', 'queued')
    note(id, 'queued', job.model, summon(job.model))
  end
end
return answer
