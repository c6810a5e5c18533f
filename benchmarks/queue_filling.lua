-- Fills a ready set with copies of a job that was really accepted; the prelude of the product stands before this.
-- ARGV id of that job, first number, how many, among how many tenants
local job = job_fields(ARGV[1], 'model', 'lane', 'est', 'size')
local fields = redis.call('HGETALL', P .. 'job:' .. ARGV[1])
local tenant_at
for i = 1, #fields, 2 do
  if fields[i] == 'tenant' then tenant_at = i + 1 end
end
for n = num(ARGV[2]), num(ARGV[2]) + num(ARGV[3]) - 1 do
  local id = string.format('%08x-0000-7000-8000-%012x', n, n)
  local tenant = 't' .. n % num(ARGV[4])
  fields[tenant_at] = tenant
  redis.call('HSET', P .. 'job:' .. id, unpack(fields))
  local score = enter(id, job.model, tenant, job.lane, num(job.est), num(job.size), nil)
  redis.call('HSET', P .. 'job:' .. id, 'score', text(score))
end
