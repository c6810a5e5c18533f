-- Shared by the scripts. The loader puts constants before it: P (key prefix), H (head start per lane), FAIR (tenants and
-- lanes count, or else each job by itself), SHORTEST (then the shortest is first, or else the oldest) and LAYOUT (the
-- version of what follows). It leaves out what a script does not use: Redis makes all of it anew at each call. Parts that
-- are left out by themselves stand apart by empty lines.
--
-- Keys
--   P job:ID              hash    one job; see the field names in queues/records.py
--   P layout              string  LAYOUT; whoever finds another one must not touch anything
--   P models              set     models that have had a job
--   P tenants:MODEL       zset    tenant -> key S - H(lane of its first job); the smallest is served next. Without those
--                                 that are paused or run as many jobs as they may
--   P ready:MODEL:TENANT:L zset   ID -> score, one per lane, L its initial (a tenant's name has no colon, a model's may)
--   P order:MODEL         hash    v jobs bytes rate run cal calm; per lane n: rl:; per tenant S: w: vt: est: q: qb: rt:,
--                                 F:TENANT:LANE where its last job ends and C:TENANT:LANE where its last served one ends;
--                                 n, q, qb, jobs, bytes, est are of waiting jobs; run, rl, rt are how many run;
--                                 calm is when a pause, drain or limit changed last
--   P promised:MODEL      hash    how promised waits came out: count sum (of real / promised) and le:BOUND (cumulative)
--   P control             hash    pause:KIND:NAME why, drain:KIND:NAME why, running:KIND:NAME the most that may run
--   P held:MODEL          zset    ID LANE SIZE TENANT -> time at which a reservation lapses
--   P leases              zset    ID -> time at which the lease ends; exactly the jobs that run
--   P later               zset    ID -> time at which a scheduled job is queued again
--   P reroute             zset    ID -> since when a job that failed waits to be given to another model
--   P expiry              zset    ID -> time at which it is given up if it still waits
--   P finish              stream  id gen attempt state: what the recorder commits to SQL
--   P reply:API           stream  b: packed frames for one api process
--   P ctl:REPLICA         stream  cancel: ID, or wake: SLOT; lapses, because a replica's name may never come back
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
local CTL_TTL = 3600

-- A script that may be repeated has its operation first; of others nothing is found.
local found = redis.call('MGET', P .. 'layout', P .. 'op:' .. (ARGV[1] or ''))
if found[1] and found[1] ~= LAYOUT then return redis.error_reply('LAYOUT ' .. found[1]) end

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

-- What the operation answered when it was called before.
local function replayed() return found[2] and cmsgpack.unpack(found[2]) end
local function remember(op, answer)
  redis.call('SET', P .. 'op:' .. op, cmsgpack.pack(answer), 'EX', OPERATION_TTL)
  return answer
end

local LANES = {h = 'high', m = 'medium', l = 'low'}
local INITIALS = {'h', 'm', 'l'}

local function order_key(model) return P .. 'order:' .. model end
local function initial(lane) return string.sub(lane, 1, 1) end
local function ready_key(model, tenant, l) return P .. 'ready:' .. model .. ':' .. tenant .. ':' .. l end

-- What operators have paused, drained or limited; most of the time nothing is.
local controlled = redis.call('EXISTS', P .. 'control') == 1
local function control(...)
  if not controlled then return {} end
  return redis.call('HMGET', P .. 'control', ...)
end

-- A tenant that is paused, or runs as many jobs of the model as it may, has no place among tenants.
local function barred(model, tenant)
  local set = control('pause:tenant:' .. tenant, 'running:tenant:' .. tenant, 'running:tenants')
  if set[1] then return true end
  local most = tonumber(set[2] or set[3] or nil)
  return most and num(redis.call('HGET', order_key(model), 'rt:' .. tenant)) >= most
end

-- A tenant's first job among the lanes that are not closed: its id, score and the lane's initial.
local function first_of(model, tenant, closed)
  local id, score, l
  for _, each in ipairs(INITIALS) do
    if not closed[each] then
      local top = redis.call('ZRANGE', ready_key(model, tenant, each), 0, 0, 'WITHSCORES')
      if top[1] and (not score or tonumber(top[2]) < score) then id, score, l = top[1], tonumber(top[2]), each end
    end
  end
  return id, score, l
end

-- Tenants with waiting jobs, also those that have no place among the tenants that are served.
local function waiting_tenants(model)
  local names = {}
  for _, field in ipairs(redis.call('HKEYS', order_key(model))) do
    if string.sub(field, 1, 2) == 'q:' then names[#names + 1] = string.sub(field, 3) end
  end
  return names
end

-- Gives a tenant with waiting jobs the place that its virtual time and its first job ask for; `score` and `l` are that
-- one's. Who (re)joins does so at max(v, S): nothing is saved up while away. Where jobs count by themselves, the place is
-- that of the first job.
local function seat(model, tenant, score, l)
  local T, O = P .. 'tenants:' .. model, order_key(model)
  if controlled and barred(model, tenant) then
    redis.call('ZREM', T, tenant)
    return
  end
  if not FAIR then
    redis.call('ZADD', T, text(score), tenant)
    return
  end
  local known = redis.call('HMGET', O, 'v', 'S:' .. tenant)
  local S = num(known[2])
  if not redis.call('ZSCORE', T, tenant) then
    S = math.max(num(known[1]), S)
    redis.call('HSET', O, 'S:' .. tenant, text(S))
  end
  redis.call('ZADD', T, text(S - H[l]), tenant)
end

-- The same, or takes the place of one that has none waiting.
local function rekey(model, tenant)
  local id, score, l = first_of(model, tenant, {})
  if id then seat(model, tenant, score, l) else redis.call('ZREM', P .. 'tenants:' .. model, tenant) end
end

-- How many jobs of the tenant wait then.
local function count(model, tenant, lane, size, est, sign)
  local O, bytes = order_key(model), string.format('%d', sign * size) -- an empty body would be '-0' otherwise
  redis.call('HINCRBY', O, 'n:' .. lane, sign)
  redis.call('HINCRBY', O, 'bytes', bytes)
  if redis.call('HINCRBY', O, 'jobs', sign) <= 0 then redis.call('HSET', O, 'bytes', 0) end
  local left = redis.call('HINCRBY', O, 'q:' .. tenant, sign)
  if left <= 0 then
    redis.call('HDEL', O, 'q:' .. tenant, 'qb:' .. tenant, 'est:' .. tenant)
  else
    redis.call('HINCRBY', O, 'qb:' .. tenant, bytes)
    redis.call('HINCRBYFLOAT', O, 'est:' .. tenant, text(sign * est))
  end
  return left
end

-- What a job waits by where tenants and lanes do not count: when it came, or how long it will take.
local function waits_by(est) return SHORTEST and est or now() end

-- Puts a job into its ready set. A job that was there before comes with its old score.
local function enter(id, model, tenant, lane, est, size, score)
  if not score then
    local O, lane_field = order_key(model), 'F:' .. tenant .. ':' .. lane
    local known = redis.call('HMGET', O, 'vt:' .. tenant, lane_field)
    local s = math.max(num(known[1]), num(known[2]))
    if not known[2] then redis.call('SADD', P .. 'models', model) end
    redis.call('HSET', O, lane_field, text(s + est))
    score = FAIR and s - H[initial(lane)] or waits_by(est)
  end
  redis.call('ZADD', ready_key(model, tenant, initial(lane)), text(score), id)
  if count(model, tenant, lane, size, est, 1) == 1 then seat(model, tenant, score, initial(lane))
  else rekey(model, tenant) end
  return score
end

-- A job that leaves unserved gives back the time that it has taken up in its lane.
local function give_back(model, tenant, lane)
  local O, l, name = order_key(model), initial(lane), tenant .. ':' .. lane
  local known = redis.call('HMGET', O, 'F:' .. name, 'C:' .. name)
  local ends = num(known[2])
  local last = redis.call('ZRANGE', ready_key(model, tenant, l), -1, -1, 'WITHSCORES')
  if last[1] then
    ends = math.max(ends, tonumber(last[2]) + H[l] + num(redis.call('HGET', P .. 'job:' .. last[1], 'est')))
  end
  if ends < num(known[1]) then redis.call('HSET', O, 'F:' .. name, text(ends)) end
end

local function leave(id, model, tenant, lane, est, size, served)
  if redis.call('ZREM', ready_key(model, tenant, initial(lane)), id) == 1 then
    if not served then give_back(model, tenant, lane) end
    if count(model, tenant, lane, size, est, -1) == 0 then redis.call('ZREM', P .. 'tenants:' .. model, tenant)
    else rekey(model, tenant) end
  end
end

-- Takes out an id whose job is gone or has moved on. What it weighed is not known any more: its share is taken.
local function drop(model, tenant, l, id)
  local O = order_key(model)
  local known = redis.call('HMGET', O, 'jobs', 'bytes', 'q:' .. tenant, 'est:' .. tenant)
  local jobs, queued = math.max(num(known[1]), 1), math.max(num(known[3]), 1)
  local size = jobs == 1 and num(known[2]) or math.floor(num(known[2]) / jobs)
  leave(id, model, tenant, LANES[l], num(known[4]) / queued, size)
end

-- S += seconds / w, and with it the tenant's place, if it has one. A refund is a negative charge.
local function charge(model, tenant, seconds)
  if not FAIR then return end
  local O = order_key(model)
  local known = redis.call('HMGET', O, 'S:' .. tenant, 'w:' .. tenant)
  local S, w = num(known[1]), num(known[2])
  local more = seconds / (w > 0 and w or 1)
  redis.call('HSET', O, 'S:' .. tenant, text(S + more))
  redis.call('ZADD', P .. 'tenants:' .. model, 'XX', 'INCR', text(more), tenant)
end

-- A lease begins and ends here and nowhere else, so that the numbers of running jobs are the truth.
local function run(id, model, tenant, lane, ends, sign)
  if sign > 0 then redis.call('ZADD', P .. 'leases', text(ends), id)
  elseif redis.call('ZREM', P .. 'leases', id) == 0 then return end
  local O = order_key(model)
  redis.call('HINCRBY', O, 'run', sign)
  redis.call('HINCRBY', O, 'rl:' .. lane, sign)
  if redis.call('HINCRBY', O, 'rt:' .. tenant, sign) <= 0 then redis.call('HDEL', O, 'rt:' .. tenant) end
  if sign < 0 and controlled then rekey(model, tenant) end
end
local function end_run(id, job) run(id, job.model, job.tenant, job.lane, 0, -1) end

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

-- Ends a job: the only place where a terminal state is written. `extra` is a flat list of further fields. `job` has its
-- state, model, tenant, lane and expires.
local function settle_state(id, job, state, extra)
  end_run(id, job)
  if job.state == 'scheduled' then
    redis.call('ZREM', P .. 'later', id)
    redis.call('ZREM', P .. 'reroute', id)
  end
  if job.expires then redis.call('ZREM', P .. 'expiry', id) end
  redis.call('HSET', P .. 'job:' .. id, 'state', state, 'finished', text(now()), unpack(extra))
  redis.call('HDEL', P .. 'job:' .. id, 'token', 'progress')
  redis.call('XADD', P .. 'finish', '*', 'id', id, 'gen', job.gen or '0', 'attempt', job.attempt or '0', 'state', state)
  tell(job, id, 'done', state)
end

-- A job whose model has others to fall back to does not fail of what those may not have: it is put aside, with the
-- failure, until the scheduler has found one. `job` has its fields `chain` and `first`. Whether it was put aside.
local ELSEWHERE = {engine_crashed = 1, engine_load_failed = 1, internal_error = 1, out_of_memory = 1, replica_lost = 1}
local function put_aside(id, job, failure)
  if job.chain ~= '1' or job.first or not ELSEWHERE[cjson.decode(failure).code] then return false end
  end_run(id, job)
  redis.call('ZADD', P .. 'reroute', text(now()), id)
  redis.call('HSET', P .. 'job:' .. id, 'state', 'scheduled', 'error', failure)
  redis.call('HDEL', P .. 'job:' .. id, 'token', 'replica', 'started', 'progress')
  tell(job, id, 'state', 'scheduled')
  return true
end

local function fail(id, job, code, message, status)
  local failure = cjson.encode({code = code, message = message, status = status, param = cjson.null})
  if put_aside(id, job, failure) then return end
  settle_state(id, job, 'failed', {'error', failure})
  reply(job.reply, frame(id, 'E', '', failure))
end

local function expire(id, job)
  local message = 'the job had not started when its deadline passed'
  local failure = cjson.encode({code = 'expired', message = message, status = 504, param = cjson.null})
  settle_state(id, job, 'expired', {'error', failure})
  reply(job.reply, frame(id, 'E', '', failure))
end

-- Back to its old place after an attempt that gave no result, at once or after `delay` seconds. Of the charge `seconds`
-- remain: what the attempt has used. The state that the job is in then.
local function queue_again(id, job, delay, seconds)
  -- Before a tenant that ran all it may comes back: it comes back at max(v, S), and S is what it has really used.
  charge(job.model, job.tenant, seconds - num(job.est))
  end_run(id, job)
  redis.call('HDEL', P .. 'job:' .. id, 'token', 'replica', 'started', 'progress')
  if job.expires and num(job.expires) <= now() then
    expire(id, job)
    return 'expired'
  end
  local state = 'queued'
  if delay > 0 then
    state = 'scheduled'
    local due = text(now() + delay)
    redis.call('ZADD', P .. 'later', due, id)
    redis.call('HSET', P .. 'job:' .. id, 'state', state, 'due', due)
  else
    redis.call('HSET', P .. 'job:' .. id, 'state', state)
    enter(id, job.model, job.tenant, job.lane, num(job.est), num(job.size), num(job.score))
  end
  tell(job, id, 'state', state)
  return state
end

-- Calls for a slot: one that lingers is woken; when none does, the caller is to ring (1). Both are only hints.
local function summon(model)
  local lingering = P .. 'linger:' .. model
  redis.call('ZREMRANGEBYSCORE', lingering, '-inf', text(now()))
  local longest = redis.call('ZPOPMIN', lingering)[1]
  if longest then
    local slot, control = string.sub(longest, 1, 16), P .. 'ctl:' .. string.sub(longest, 17)
    redis.call('XADD', control, 'MAXLEN', '~', WAKES, '*', 'wake', slot)
    redis.call('EXPIRE', control, CTL_TTL)
    return 0
  end
  local waiting = num(redis.call('HGET', order_key(model), 'jobs'))
  if waiting > BELLS then waiting = BELLS end
  return redis.call('LLEN', P .. 'bell.' .. model) < waiting and 1 or 0
end

-- The job as field, value, ... for the attempt that has just begun.
local function attempt_of(id)
  local flat = redis.call('HGETALL', P .. 'job:' .. id)
  flat[#flat + 1] = 'id'
  flat[#flat + 1] = id
  return flat
end

-- The same for an operation that is repeated; {} when the attempt is over.
local function attempt_again(id, token)
  return redis.call('HGET', P .. 'job:' .. id, 'token') == token and attempt_of(id) or {}
end

-- Device seconds that a job of so many units will take, as learnt.
local function estimate(model, units)
  local rate = num(redis.call('HGET', order_key(model), 'rate'))
  return math.max(units * (rate > 0 and rate or 0.001), 0.000001)
end
