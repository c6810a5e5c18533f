-- Gives a job that was put aside to another model, or lets it fail after all.
-- ARGV id gen model body units weight; model '': there is none; weight of the tenant, 0 leaves the one that is known   -> {state the job is in or 'stale', bell wanted}
begin_freeing()
local id, model, body, units = ARGV[1], ARGV[3], ARGV[4], num(ARGV[5])
local job = job_fields(id, 'state', 'model', 'tenant', 'lane', 'gen', 'attempt', 'reply', 'kept', 'error', 'expires', 'asked')
if job.state == 'scheduled' and job.gen ~= ARGV[2] then return {'stale', 0} end
if redis.call('ZREM', P .. 'reroute', id) == 0 or job.state ~= 'scheduled' then return {'stale', 0} end
-- 1. Nobody else can: the failure is the one that it had.
if model == '' then
  settle_state(id, job, 'failed', {})
  reply(job.reply, frame(id, 'E', '', job.error))
  return {'failed', 0}
end
-- 2. Too late for another one.
if job.expires and num(job.expires) <= now() then
  expire(id, job)
  return {'expired', 0}
end
-- 3. A new job of the other model, with fresh attempts.
local est = estimate(model, units)
if num(ARGV[6]) > 0 then redis.call('HSET', order_key(model), 'w:' .. job.tenant, ARGV[6]) end
redis.call('HDEL', P .. 'job:' .. id, 'error', 'eta')
redis.call('HSET', P .. 'job:' .. id, 'state', 'queued', 'model', model, 'asked', job.asked or job.model, 'body', body,
  'size', #body, 'units', ARGV[5], 'est', text(est), 'attempt', 0)
local score = enter(id, model, job.tenant, job.lane, est, #body, nil)
redis.call('HSET', P .. 'job:' .. id, 'score', text(score))
tell(job, id, 'state', 'queued')
return {'queued', summon(model)}
