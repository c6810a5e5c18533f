-- Makes a job queued.
-- ARGV op mode weight id model tenant lane units size gen expires servers delay, the bounds if direct, read if restore, then
-- field value ...
-- weight of the tenant; 0 leaves the one that is known
-- mode   direct: check the bounds; reserved: the place is held; restore: no bound, the job was accepted before
--   -> {status, position, device seconds ahead, bell wanted, seconds until it is expected to start or '',
--   what `take` tells}
--   status ok | number (the weight or the units are no finite number) | old | exists | tomb | the bound that is reached
-- read     when its row was read, or '' if that is not long ago for certain
-- expires  seconds from now after which it is given up if it has not started, or ''; for restore the time at which it is
-- servers, delay: replicas that serve the model, and the seconds until there is one; 0: nobody knows. servers '':
-- nobody asks where the job stands, and its position is -1
local READ_TTL = 30
local op, mode, weight, id, model, tenant, lane = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local units, size, gen, expires = num(ARGV[8]), num(ARGV[9]), num(ARGV[10]), ARGV[11]
-- 0. Nothing is written for a size that cannot be reckoned with.
for _, given in ipairs({weight, ARGV[8]}) do
  local n = tonumber(given)
  if not (n and finite(n)) then return {'number', -1, '0', 0, '', {}} end
end
local before = replayed()
if before then return before end
-- Called last: a full Redis refuses a script whose first write may grow, and this one frees.
local function release()
  if mode == 'reserved' then redis.call('ZREM', P .. 'held:' .. model, place_of(id, lane, ARGV[9], tenant)) end
end

-- 1. Its row was read by a process that was away since: the job may have run, and lapsed here.
if mode == 'restore' and ARGV[14] ~= '' and now() - num(ARGV[14]) > READ_TTL then return {'old', -1, '0', 0, '', {}} end
-- 2. This generation, or a later one, was cancelled before it came.
local tomb = redis.call('GET', P .. 'tomb:' .. id)
if tomb and num(tomb) >= gen then
  release()
  return {'tomb', -1, '0', 0, '', {}}
end
-- 3. Already here. A higher generation replaces a job that has ended.
local old = job_fields(id, 'state', 'gen')
if old.state then
  local ended = old.state ~= 'queued' and old.state ~= 'running' and old.state ~= 'scheduled'
  if not (ended and num(old.gen) < gen) then
    release()
    return {'exists', -1, '0', 0, '', {}}
  end
end
-- 4. A bound is reached.
local told = {}
if mode == 'direct' then
  told = admit(model, tenant, lane, size, {unpack(ARGV, 14, 13 + BOUNDS)})
  if told[1] ~= 'ok' then return {told[1], -1, backlog(model), 0, '', told} end
end
-- 5. Queued.
local est, job_key = estimate(model, units), P .. 'job:' .. id
if num(weight) > 0 then redis.call('HSET', order_key(model), 'w:' .. tenant, weight) end
if old.state then redis.call('DEL', job_key, P .. 'events:' .. id) end
local score = enter(id, model, tenant, lane, est, size, nil)
redis.call('HSET', job_key, 'state', 'queued', 'model', model, 'tenant', tenant, 'lane', lane, 'units', ARGV[8],
  'size', ARGV[9], 'gen', ARGV[10], 'est', text(est), 'queued', text(now()), 'score', text(score),
  unpack(ARGV, 14 + (mode == 'direct' and BOUNDS or mode == 'restore' and 1 or 0)))
if expires ~= '' then
  if mode ~= 'restore' then expires = text(now() + num(expires)) end
  redis.call('HSET', job_key, 'expires', expires)
  redis.call('ZADD', P .. 'expiry', expires, id)
end
release()
-- A caller that has just begun may not have made its stream yet; whoever calls is there.
local api = redis.call('HGET', job_key, 'reply')
if api and redis.call('EXISTS', P .. 'reply:' .. api) == 0 then
  redis.call('XADD', P .. 'reply:' .. api, '*', 'b', '')
  redis.call('EXPIRE', P .. 'reply:' .. api, REPLY_TTL)
end
local place, eta = {-1, '0'}, nil
if ARGV[12] ~= '' then
  local job = {model = model, tenant = tenant, lane = lane}
  place = standing(id, job)
  eta = expected(job, num(place[2]), num(ARGV[12]), num(ARGV[13]))
  -- A promise of less than a second is none that anybody could measure.
  if eta and eta >= 1 then redis.call('HSET', job_key, 'eta', text(eta)) end
end
return remember(op, {'ok', place[1], place[2], summon(model), eta and text(eta) or '', told})
