-- The caller is about to see part of the answer: from now on the job is never run again.
-- ARGV id token frame   -> 1, or 0 when the attempt is no longer trusted
begin_freeing()
local id = ARGV[1]
local job = job_fields(id, 'state', 'token', 'reply')
if job.state ~= 'running' or job.token ~= ARGV[2] then return 0 end
redis.call('HSET', P .. 'job:' .. id, 'first', '1')
reply(job.reply, ARGV[3])
return 1
