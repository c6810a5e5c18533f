-- Bounds of a model's ready set and of a tenant; used by full, room, reserve and accept.
--   P rate:TENANT   hash  requests tokens: what its buckets hold; at: when they held it
--   P spent:TENANT  hash  DAY (days since 1970, UTC) -> device seconds used, of 35 days; P spent: earlier days are there
local function backlog(model)
  local total, names = 0, redis.call('ZRANGE', P .. 'tenants:' .. model, 0, 255)
  if #names == 0 then return '0' end
  for i, tenant in ipairs(names) do names[i] = 'est:' .. tenant end
  for _, est in ipairs(redis.call('HMGET', order_key(model), unpack(names))) do total = total + num(est) end
  return text(total)
end

-- A reserved place as it stands in `held`: it counts as the job will.
local function place_of(id, lane, size, tenant) return id .. ' ' .. lane .. ' ' .. size .. ' ' .. tenant end

-- What waits, or has a place: jobs, bytes, jobs of the lane, jobs of the tenant, bytes of the tenant.
local function held_of(model, tenant, lane)
  local known = redis.call('HMGET', order_key(model), 'jobs', 'bytes', 'n:' .. lane, 'q:' .. tenant, 'qb:' .. tenant)
  local jobs, bytes, of_lane, mine, my_bytes = num(known[1]), num(known[2]), num(known[3]), num(known[4]), num(known[5])
  for _, place in ipairs(redis.call('ZRANGEBYSCORE', P .. 'held:' .. model, '(' .. text(now()), '+inf')) do
    local its_lane, its_size, whose = string.match(place, '^%S+ (%l+) (%d+) (.*)$')
    jobs, bytes = jobs + 1, bytes + num(its_size)
    if its_lane == lane then of_lane = of_lane + 1 end
    if whose == tenant then mine, my_bytes = mine + 1, my_bytes + num(its_size) end
  end
  return jobs, bytes, of_lane, mine, my_bytes
end

-- The bound of `most`, in the same order, that one more job reaches, or 'ok'.
local function over_bound(model, tenant, lane, size, most)
  local jobs, bytes, of_lane, mine, my_bytes = held_of(model, tenant, lane)
  bytes, my_bytes = bytes + size, my_bytes + size
  if jobs >= num(most[1]) then return 'jobs' end
  if bytes > num(most[2]) then return 'bytes' end
  if of_lane >= num(most[3]) then return 'lane' end
  if mine >= num(most[4]) then return 'tenant' end
  if my_bytes > num(most[5]) then return 'tenant_bytes' end
  return 'ok'
end

local DEBT = 60 -- minutes

-- Takes a request of so many tokens out of the tenant's buckets, which hold a minute's worth and fill all the time. One
-- that is larger than its bucket needs a full one, and leaves a debt, of an hour at most. `owed`: its request was taken
-- before, and its tokens leave a debt in any case.
--   -> status ok | requests | tokens, then seconds until it would do, or, when ok: requests left, seconds until their
--   bucket is full, tokens left, seconds until theirs is
local function take(tenant, requests, tokens, needed, owed)
  if requests <= 0 and tokens <= 0 then return 'ok' end
  local key, time = P .. 'rate:' .. tenant, now()
  local known = redis.call('HMGET', key, 'requests', 'tokens', 'at')
  local minutes = math.max(time - num(known[3]), 0) / 60
  local function filled(left, most) return left and math.min(num(left) + minutes * most, most) or most end
  local r, t = filled(known[1], requests), filled(known[2], tokens)
  if requests > 0 and r < 1 and not owed then return 'requests', text((1 - r) * 60 / requests) end
  local enough = math.min(needed, tokens)
  if tokens > 0 and t < enough and not owed then return 'tokens', text((enough - t) * 60 / tokens) end
  r, t = requests > 0 and r - (owed and 0 or 1) or 0, tokens > 0 and math.max(t - needed, -DEBT * tokens) or 0
  redis.call('HSET', key, 'requests', text(r), 'tokens', text(t), 'at', text(time))
  local full_r = requests > 0 and (requests - r) * 60 / requests or 0
  local full_t = tokens > 0 and (tokens - t) * 60 / tokens or 0
  redis.call('EXPIRE', key, math.ceil(math.max(full_r, full_t)) + 1)
  return 'ok', text(r), text(full_r), text(t), text(full_t)
end

-- Whether the tenant has used its device seconds of the day or of the month, whose first day is `first`.
local function over_budget(tenant, per_day, per_month, first)
  if per_day <= 0 and per_month <= 0 then return 'ok' end
  local today, month = math.floor(now() / 86400), 0
  local spent = redis.call('HGETALL', P .. 'spent:' .. tenant)
  for i = 1, #spent, 2 do
    local day = num(spent[i])
    if per_day > 0 and day == today and num(spent[i + 1]) >= per_day then return 'day' end
    if day >= first then month = month + num(spent[i + 1]) end
  end
  return per_month > 0 and month >= per_month and 'month' or 'ok'
end

-- All bounds of a new job. `b`: the five of over_bound; requests and tokens per minute, tokens of this one; device seconds
-- per day and month, first day of the month. The status, then what `take` tells.
local BOUNDS = 11
local function admit(model, tenant, lane, size, b)
  local status = over_bound(model, tenant, lane, size, b)
  if status == 'ok' then status = over_budget(tenant, num(b[9]), num(b[10]), num(b[11])) end
  if status ~= 'ok' then return {status} end
  return {take(tenant, num(b[6]), num(b[7]), num(b[8]))}
end
