-- Keeps a place for a durable job until SQL has it; lapses by itself.
-- ARGV id model tenant lane size lapse, then the bounds   -> {status, device seconds ahead of one that is refused,
--   what `take` tells}
local id, model, tenant = ARGV[1], ARGV[2], ARGV[3]
local rate = {}
local time, held, place = now(), P .. 'held:' .. model, place_of(id, ARGV[4], ARGV[5], tenant)
-- A repeat finds its own place; it is not a second one.
if num(redis.call('ZSCORE', held, place)) <= time then
  rate = admit(model, tenant, ARGV[4], num(ARGV[5]), {unpack(ARGV, 7)})
  if rate[1] ~= 'ok' then return {rate[1], backlog(model), rate} end
end
-- The write that may grow comes first, so that a full Redis refuses it.
redis.call('ZADD', held, text(time + num(ARGV[6])), place)
redis.call('ZREMRANGEBYSCORE', held, '-inf', text(time))
return {'ok', '0', rate}
