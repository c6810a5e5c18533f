-- SQL holds these jobs: their records may lapse, and the entries of the finish stream that told of them go.
-- ARGV how many entries, their ids, then id gen ttl ...
begin_freeing()
local entries = num(ARGV[1])
for i = entries + 2, #ARGV, 3 do
  local id = ARGV[i]
  local job = job_fields(id, 'gen', 'state', 'kept')
  if job.gen == ARGV[i + 1] and job.state ~= 'queued' and job.state ~= 'running' and job.state ~= 'scheduled' then
    redis.call('HSET', P .. 'job:' .. id, 'recorded', '1')
    redis.call('EXPIRE', P .. 'job:' .. id, num(ARGV[i + 2]))
    if job.kept == '1' then redis.call('EXPIRE', P .. 'events:' .. id, num(ARGV[i + 2])) end
  end
end
return entries > 0 and redis.call('XDEL', P .. 'finish', unpack(ARGV, 2, entries + 1)) or 0
