-- A model that cannot be loaded fails what waits for it. ARGV model limit code message status   -> ids
begin_freeing()
local answer = {}
for _, tenant in ipairs(redis.call('ZRANGE', P .. 'tenants:' .. ARGV[1], 0, -1)) do
  for _, m in ipairs(redis.call('ZRANGE', tenant_key(ARGV[1], tenant), 0, num(ARGV[2]) - 1)) do
    local id = string.sub(m, 2)
    local job = job_fields(id, 'state', 'lane', 'est', 'size', 'gen', 'attempt', 'reply', 'kept')
    if job.state == 'queued' then
      leave(id, ARGV[1], tenant, job.lane, num(job.est), num(job.size))
      fail(id, job, ARGV[3], ARGV[4], num(ARGV[5]))
    else
      drop(ARGV[1], tenant, m)
    end
    answer[#answer + 1] = id
  end
end
return answer
