-- Keeps leases. ARGV lease, then id token progress ...   -> one of ok | lost per pair
begin_freeing()
local ends = text(now() + num(ARGV[1]))
local answer = {}
for i = 2, #ARGV, 3 do
  local id, token, progress = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local job = job_fields(id, 'state', 'token', 'progress', 'kept')
  if job.state == 'running' and job.token == token then
    redis.call('ZADD', P .. 'leases', ends, id)
    if progress ~= '' and progress ~= job.progress then
      redis.call('HSET', P .. 'job:' .. id, 'progress', progress)
      tell(job, id, 'progress', progress)
    end
    answer[#answer + 1] = 'ok'
  else
    answer[#answer + 1] = 'lost'
  end
end
return answer
