-- Jobs whose lease has ended. ARGV limit   -> {id, new state, model, bell wanted ...}
begin_freeing()
local answer = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', text(now()), 'LIMIT', 0, num(ARGV[1]))) do
  local job = job_fields(id, 'state', 'model', 'tenant', 'lane', 'est', 'size', 'score', 'gen', 'attempt', 'max', 'reply',
    'kept', 'first', 'replica', 'expires', 'chain')
  local state, bell = 'gone', 0
  if job.state ~= 'running' then
    redis.call('ZREM', P .. 'leases', id) -- no job of ours: nothing counted it
  elseif job.first then
    fail(id, job, 'stream_broken', 'the replica was lost after the answer had begun', 502)
    state = 'failed'
  elseif num(job.attempt) >= num(job.max) then
    fail(id, job, 'replica_lost', 'the replica was lost in each of ' .. job.attempt .. ' attempts', 502)
    state = 'failed'
  else
    state = queue_again(id, job, 0, 0)
    if state == 'queued' then bell = summon(job.model) end
  end
  for _, value in ipairs({id, state, job.model or '', bell}) do answer[#answer + 1] = value end
end
return answer
