-- Bounds of a model's ready set; used by full, reserve and accept.
local function backlog(model)
  local total = 0
  for _, tenant in ipairs(redis.call('ZRANGE', P .. 'tenants:' .. model, 0, 255)) do
    total = total + num(redis.call('HGET', order_key(model), 'est:' .. tenant))
  end
  return text(total)
end

-- `most`: jobs, bytes, jobs of the lane, jobs of the tenant, bytes of the tenant. The bound that is reached, or 'ok'.
local function over_bound(model, tenant, lane, size, most)
  local known = redis.call('HMGET', order_key(model), 'jobs', 'bytes', 'n:' .. lane, 'q:' .. tenant, 'qb:' .. tenant)
  local held = redis.call('ZCOUNT', P .. 'held:' .. model, '(' .. text(now()), '+inf')
  if num(known[1]) + held >= num(most[1]) then return 'jobs' end
  if num(known[2]) + size > num(most[2]) then return 'bytes' end
  if num(known[3]) >= num(most[3]) then return 'lane' end
  if num(known[4]) >= num(most[4]) then return 'tenant' end
  if num(known[5]) + size > num(most[5]) then return 'tenant_bytes' end
  return 'ok'
end
