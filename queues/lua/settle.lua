-- SQL holds these jobs: their Redis records may lapse and the stream may be trimmed up to `upto`.
-- ARGV upto, then id gen ttl ...
begin_freeing()
for i = 2, #ARGV, 3 do
  local id = ARGV[i]
  local job = job_fields(id, 'gen', 'state', 'kept')
  if job.gen == ARGV[i + 1] and job.state ~= 'queued' and job.state ~= 'running' and job.state ~= 'scheduled' then
    redis.call('HSET', P .. 'job:' .. id, 'recorded', '1')
    redis.call('EXPIRE', P .. 'job:' .. id, num(ARGV[i + 2]))
    if job.kept == '1' then redis.call('EXPIRE', P .. 'events:' .. id, num(ARGV[i + 2])) end
  end
end
return redis.call('XTRIM', P .. 'finish', 'MINID', ARGV[1])
