-- A model that cannot be loaded fails what waits for it, at most `limit` jobs in a call.
-- ARGV model limit code message status   -> ids
begin_freeing()
local model, limit, answer = ARGV[1], num(ARGV[2]), {}
for _, tenant in ipairs(waiting_tenants(model)) do
  for _, l in ipairs(INITIALS) do
    for _, id in ipairs(redis.call('ZRANGE', ready_key(model, tenant, l), 0, limit - 1 - #answer)) do
      local job = job_fields(id, 'state', 'lane', 'est', 'size', 'gen', 'attempt', 'reply', 'kept', 'chain', 'first',
        'expires')
      job.model, job.tenant = model, tenant
      if job.state == 'queued' then
        leave(id, model, tenant, job.lane, num(job.est), num(job.size))
        fail(id, job, ARGV[3], ARGV[4], num(ARGV[5]))
      else
        drop(model, tenant, l, id)
      end
      answer[#answer + 1] = id
    end
    if #answer >= limit then return answer end
  end
end
return answer
