-- ARGV key   -> {media type, a line end, the data; milliseconds left}; false when there is none. One that lapsed
-- leaves the books.
local name = P .. 'cache:' .. ARGV[1]
local data = redis.call('GET', name)
if data then
  redis.call('ZADD', P .. 'cache', 'XX', now(), ARGV[1])
  return {data, redis.call('PTTL', name)}
end
local size = num(redis.call('HGET', P .. 'cache.sizes', ARGV[1]))
if size > 0 then
  redis.call('ZREM', P .. 'cache', ARGV[1])
  redis.call('HDEL', P .. 'cache.sizes', ARGV[1])
  redis.call('HINCRBY', P .. 'cache.sizes', 'total', -size)
end
return false
