-- Shared by every script; the loader puts the constants P (key prefix) and H (head start per lane) before it.
--
-- Keys
--   P job:ID              hash    one job; see the field names in queues/records.py
--   P models              set     models that have had a job
--   P tenants:MODEL       zset    tenant -> key S - H(lane of its first job); the smallest is served next
--   P ready:MODEL:TENANT  zset    LANE_INITIAL..ID -> score (a tenant's name has no colon, a model's may)
--   P order:MODEL         hash    v; per tenant S: w: vt: F:TENANT:LANE est: q: ; n:LANE jobs bytes est rate
--   P held:MODEL          zset    ID -> time at which a reservation lapses
--   P leases              zset    ID -> time at which the lease ends
--   P finish              stream  id gen attempt state: what the recorder commits to SQL
--   P reply:API           stream  b: packed frames for one api process
--   P ctl:REPLICA         stream  cancel: ID, or wake: SLOT
--   P linger:MODEL        zset    SLOT REPLICA -> time until which that slot waits for a wake
--   P events:ID           stream  name data: what a kept job's followers read
--   P op:OPERATION        string  what a mutating call answered, for its repeat (a claimed job by id and token only)
--   P tomb:ID             string  a cancel that came before the job
--   P cache, P cache:KEY  answers of pure requests; see cache_put.lua
--   P bell.MODEL          list    Celery's queue of doorbells
-- Times are seconds of Redis TIME. Numbers are written with 17 digits: tostring() would round them.

local BELLS = 1000
local OPERATION_TTL = 60
local TOMB_TTL = 3600
local REPLY_TTL = 10
local DROPS = 100
local WAKES = 10000

local function finite(value) return value == value and value > -math.huge and value < math.huge end
-- What is no finite number counts as 0, so that nothing computed from it stays infinite for good.
local function num(value)
  local n = tonumber(value or 0) or 0
  return finite(n) and n or 0
end
local function text(value) return string.format('%.17g', value) end
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

-- At maxmemory Redis refuses a script whose first write may grow; one that began with a freeing write may go on.
local function begin_freeing() redis.call('ZREM', P .. 'leases', '') end

local function replayed(op)
  local answer = redis.call('GET', P .. 'op:' .. op)
  return answer and cmsgpack.unpack(answer)
end
local function remember(op, answer)
  redis.call('SET', P .. 'op:' .. op, cmsgpack.pack(answer), 'EX', OPERATION_TTL)
  return answer
end

local function order_key(model) return P .. 'order:' .. model end
local function tenant_key(model, tenant) return P .. 'ready:' .. model .. ':' .. tenant end
local function member(lane, id) return string.sub(lane, 1, 1) .. id end

-- The tenant's place among tenants follows the lane of its first job; a tenant with no job has no place.
local function rekey(model, tenant)
  local first = redis.call('ZRANGE', tenant_key(model, tenant), 0, 0)[1]
  if not first then
    redis.call('ZREM', P .. 'tenants:' .. model, tenant)
    return
  end
  local S = num(redis.call('HGET', order_key(model), 'S:' .. tenant))
  redis.call('ZADD', P .. 'tenants:' .. model, text(S - H[string.sub(first, 1, 1)]), tenant)
end

local function count(model, tenant, lane, size, est, sign)
  local O = order_key(model)
  redis.call('HINCRBY', O, 'n:' .. lane, sign)
  redis.call('HINCRBY', O, 'bytes', string.format('%d', sign * size)) -- an empty body would be '-0' otherwise
  if redis.call('HINCRBY', O, 'jobs', sign) <= 0 then redis.call('HSET', O, 'bytes', 0) end
  if redis.call('HINCRBY', O, 'q:' .. tenant, sign) <= 0 then
    redis.call('HDEL', O, 'q:' .. tenant, 'est:' .. tenant)
  else
    redis.call('HINCRBYFLOAT', O, 'est:' .. tenant, text(sign * est))
  end
end

-- Puts a job into its ready set. A job that was there before comes with its old score.
local function enter(id, model, tenant, lane, est, size, score)
  local O, Q = order_key(model), tenant_key(model, tenant)
  if not score then
    local lane_field = 'F:' .. tenant .. ':' .. lane
    local known = redis.call('HMGET', O, 'vt:' .. tenant, lane_field)
    local s = math.max(num(known[1]), num(known[2]))
    redis.call('HSET', O, lane_field, text(s + est))
    score = s - H[string.sub(lane, 1, 1)]
  end
  if redis.call('EXISTS', Q) == 0 then
    local known = redis.call('HMGET', O, 'v', 'S:' .. tenant)
    redis.call('HSET', O, 'S:' .. tenant, text(math.max(num(known[1]), num(known[2]))))
    redis.call('SADD', P .. 'models', model)
  end
  redis.call('ZADD', Q, text(score), member(lane, id))
  count(model, tenant, lane, size, est, 1)
  rekey(model, tenant)
  return score
end

local function leave(id, model, tenant, lane, est, size)
  if redis.call('ZREM', tenant_key(model, tenant), member(lane, id)) == 1 then
    count(model, tenant, lane, size, est, -1)
    rekey(model, tenant)
  end
end

-- Takes out a member whose job is gone or has moved on. What it weighed is not known any more: its share is taken.
local LANES = {h = 'high', m = 'medium', l = 'low'}
local function drop(model, tenant, m)
  local O = order_key(model)
  local known = redis.call('HMGET', O, 'jobs', 'bytes', 'q:' .. tenant, 'est:' .. tenant)
  local jobs, queued = math.max(num(known[1]), 1), math.max(num(known[3]), 1)
  local size = jobs == 1 and num(known[2]) or math.floor(num(known[2]) / jobs)
  leave(string.sub(m, 2), model, tenant, LANES[string.sub(m, 1, 1)], num(known[4]) / queued, size)
end

-- S += seconds / w. A refund is a negative charge.
local function charge(model, tenant, seconds)
  local O = order_key(model)
  local w = num(redis.call('HGET', O, 'w:' .. tenant))
  if w <= 0 then w = 1 end
  redis.call('HSET', O, 'S:' .. tenant, text(num(redis.call('HGET', O, 'S:' .. tenant)) + seconds / w))
  if redis.call('EXISTS', tenant_key(model, tenant)) == 1 then rekey(model, tenant) end
end

local function frame(id, kind, token, data)
  return struct.pack('>c36c1c16I4I4', id, kind, token .. string.rep('-', 16 - #token), 0, #data) .. data
end

local function reply(api, packed)
  if api and api ~= '' and packed ~= '' then
    redis.call('XADD', P .. 'reply:' .. api, 'NOMKSTREAM', '*', 'b', packed)
  end
end

local function tell(job, id, name, data)
  if job.kept == '1' then redis.call('XADD', P .. 'events:' .. id, 'MAXLEN', '~', 10000, '*', 'name', name, 'data', data) end
end

local function job_fields(id, ...)
  local names = {...}
  local values = redis.call('HMGET', P .. 'job:' .. id, unpack(names))
  local job = {}
  for i, name in ipairs(names) do job[name] = values[i] or nil end
  return job
end

-- Ends a job: the only place where a terminal state is written. `extra` is a flat list of further fields.
local function settle_state(id, job, state, extra)
  redis.call('ZREM', P .. 'leases', id)
  local fields = {'state', state, 'finished', text(now())}
  for _, value in ipairs(extra) do fields[#fields + 1] = value end
  redis.call('HSET', P .. 'job:' .. id, unpack(fields))
  redis.call('HDEL', P .. 'job:' .. id, 'token', 'progress')
  redis.call('XADD', P .. 'finish', '*', 'id', id, 'gen', job.gen or '0', 'attempt', job.attempt or '0', 'state', state)
  tell(job, id, 'done', state)
end

local function fail(id, job, code, message, status)
  local failure = cjson.encode({code = code, message = message, status = status, param = cjson.null})
  settle_state(id, job, 'failed', {'error', failure})
  reply(job.reply, frame(id, 'E', '', failure))
end

-- Back to its old place after an attempt that gave no result; the charge of the attempt is refunded.
local function queue_again(id, job)
  redis.call('ZREM', P .. 'leases', id)
  charge(job.model, job.tenant, -num(job.est))
  redis.call('HDEL', P .. 'job:' .. id, 'token', 'replica', 'started', 'progress')
  redis.call('HSET', P .. 'job:' .. id, 'state', 'queued')
  enter(id, job.model, job.tenant, job.lane, num(job.est), num(job.size), num(job.score))
  tell(job, id, 'state', 'queued')
end

-- Calls for a slot: one that lingers is woken; when none does, the caller is to ring (1). Both are only hints.
local function summon(model)
  local lingering = P .. 'linger:' .. model
  redis.call('ZREMRANGEBYSCORE', lingering, '-inf', text(now()))
  local longest = redis.call('ZPOPMIN', lingering)[1]
  if longest then
    local slot, replica = string.sub(longest, 1, 16), string.sub(longest, 17)
    redis.call('XADD', P .. 'ctl:' .. replica, 'MAXLEN', '~', WAKES, '*', 'wake', slot)
    return 0
  end
  local waiting = num(redis.call('HGET', order_key(model), 'jobs'))
  if waiting > BELLS then waiting = BELLS end
  return redis.call('LLEN', P .. 'bell.' .. model) < waiting and 1 or 0
end

-- {own rank and estimated jobs of others ahead, device seconds ahead} of a waiting job.
local function standing(id, job)
  local model, tenant, O = job.model, job.tenant, order_key(job.model)
  local rank = redis.call('ZRANK', tenant_key(model, tenant), member(job.lane, id))
  if not rank then return {-1, '0'} end
  local function of(t)
    local known = redis.call('HMGET', O, 'S:' .. t, 'w:' .. t, 'q:' .. t, 'est:' .. t)
    local w, n, est = num(known[2]), num(known[3]), num(known[4])
    return num(known[1]), w > 0 and w or 1, n, n > 0 and est / n or 0
  end
  local S, w, _, mean = of(tenant)
  local own = rank * mean
  local reached = S - H[string.sub(job.lane, 1, 1)] + own / w
  local jobs, seconds = rank, own
  for _, other in ipairs(redis.call('ZRANGE', P .. 'tenants:' .. model, 0, 255)) do
    if other ~= tenant then
      local first = redis.call('ZRANGE', tenant_key(model, other), 0, 0)[1]
      local So, wo, n, each = of(other)
      local ahead = (reached - (So - H[string.sub(first or 'l', 1, 1)])) * wo
      if first and ahead >= 0 and n > 0 then
        local served = each > 0 and math.min(n, math.floor(ahead / each) + 1) or n
        jobs, seconds = jobs + served, seconds + served * each
      end
    end
  end
  return {jobs, text(seconds)}
end

-- The job as field, value, ... for the attempt that holds it; {} when the attempt is over.
local function attempt_of(id, token)
  if redis.call('HGET', P .. 'job:' .. id, 'token') ~= token then return {} end
  local flat = redis.call('HGETALL', P .. 'job:' .. id)
  flat[#flat + 1] = 'id'
  flat[#flat + 1] = id
  return flat
end

-- Takes the best waiting job for a replica and returns its id, or nil when nothing waits; then the slot, if one is
-- named, is noted as lingering. Jobs that nobody may run are dropped on the way, so many in one call (Redis serves
-- nobody else meanwhile): nil, true asks for another call.
local function claim(model, replica, token, lease, slot, linger)
  local O = order_key(model)
  for _ = 1, DROPS do
    local top = redis.call('ZRANGE', P .. 'tenants:' .. model, 0, 0, 'WITHSCORES')
    local tenant = top[1]
    if not tenant then
      if slot ~= '' then redis.call('ZADD', P .. 'linger:' .. model, text(now() + linger), slot .. replica) end
      return nil
    end
    local first = redis.call('ZRANGE', tenant_key(model, tenant), 0, 0, 'WITHSCORES')
    if not first[1] then
      redis.call('ZREM', P .. 'tenants:' .. model, tenant)
    else
      local id = string.sub(first[1], 2)
      local job = job_fields(id, 'state', 'est', 'lane', 'size', 'gen', 'attempt', 'kept', 'reply')
      if job.state ~= 'queued' then
        drop(model, tenant, first[1])
      elseif job.reply and job.kept ~= '1' and redis.call('EXISTS', P .. 'reply:' .. job.reply) == 0 then
        leave(id, model, tenant, job.lane, num(job.est), num(job.size))
        local message = 'nobody waits for the answer any more'
        local failure = cjson.encode({code = 'caller_gone', message = message, status = 499, param = cjson.null})
        settle_state(id, job, 'cancelled', {'error', failure})
      else
        local known = redis.call('HMGET', O, 'v', 'vt:' .. tenant)
        redis.call('HSET', O, 'v', text(math.max(num(known[1]), num(top[2]))),
          'vt:' .. tenant, text(math.max(num(known[2]), num(first[2]))))
        leave(id, model, tenant, job.lane, num(job.est), num(job.size))
        charge(model, tenant, num(job.est))
        local time = now()
        redis.call('HSET', P .. 'job:' .. id, 'state', 'running', 'token', token, 'replica', replica,
          'started', text(time), 'attempt', num(job.attempt) + 1)
        -- A slot that something else than a wake called is still noted.
        if slot ~= '' then redis.call('ZREM', P .. 'linger:' .. model, slot .. replica) end
        redis.call('ZADD', P .. 'leases', text(time + lease), id)
        tell(job, id, 'state', 'running')
        return id
      end
    end
  end
  return nil, true
end
