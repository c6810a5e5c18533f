-- Bounds of a model's ready set; used by full, reserve and accept.
local function backlog(model)
  local total = 0
  for _, tenant in ipairs(redis.call('ZRANGE', P .. 'tenants:' .. model, 0, 255)) do
    total = total + num(redis.call('HGET', order_key(model), 'est:' .. tenant))
  end
  return text(total)
end

local function over_bound(model, tenant, size, max_jobs, max_bytes, max_tenant)
  local known = redis.call('HMGET', order_key(model), 'jobs', 'bytes', 'q:' .. tenant)
  local held = redis.call('ZCOUNT', P .. 'held:' .. model, '(' .. text(now()), '+inf')
  if num(known[1]) + held >= max_jobs then return 'jobs' end
  if num(known[2]) + size > max_bytes then return 'bytes' end
  if num(known[3]) >= max_tenant then return 'tenant' end
  return 'ok'
end
