-- Gives a waiting job another lane. It keeps the time at which it came: only the head start changes.
-- ARGV id gen lane   -> state the job is in, 'unknown' or 'stale' (a newer generation is here)
begin_freeing()
local id, lane = ARGV[1], ARGV[3]
local job = job_fields(id, 'state', 'model', 'tenant', 'lane', 'est', 'size', 'score', 'gen')
if not job.state then return 'unknown' end
if num(job.gen) > num(ARGV[2]) then return 'stale' end
if job.lane == lane or (job.state ~= 'queued' and job.state ~= 'scheduled') then return job.state end
local score = num(job.score) + H[initial(job.lane)] - H[initial(lane)]
redis.call('HSET', P .. 'job:' .. id, 'lane', lane, 'score', text(score))
if job.state == 'queued' then
  -- At no moment away: who comes back to the tenants that are served begins where they are.
  redis.call('ZREM', ready_key(job.model, job.tenant, initial(job.lane)), id)
  redis.call('ZADD', ready_key(job.model, job.tenant, initial(lane)), text(score), id)
  redis.call('HINCRBY', order_key(job.model), 'n:' .. job.lane, -1)
  redis.call('HINCRBY', order_key(job.model), 'n:' .. lane, 1)
  rekey(job.model, job.tenant)
end
return job.state
