-- ARGV key data media_type ttl most_bytes entry   -> number of entries that had to go. Keys: P cache:KEY string, P cache zset
-- KEY -> time of its last use, P cache.sizes hash KEY -> bytes and `total`; each with the `entry` bytes that Redis needs
-- for these three, so that many small answers are bounded too.
local key, data, bound = ARGV[1], ARGV[3] .. '\n' .. ARGV[2], num(ARGV[5])
local index, sizes = P .. 'cache', P .. 'cache.sizes'
redis.call('ZADD', index, now(), key)
local before = num(redis.call('HGET', sizes, key))
local after = #data + num(ARGV[6])
redis.call('HSET', sizes, key, after)
local total = redis.call('HINCRBY', sizes, 'total', after - before)
redis.call('SET', P .. 'cache:' .. key, data, 'EX', ARGV[4])
local gone = 0
while total > bound do
  local oldest = redis.call('ZPOPMIN', index)[1]
  if not oldest then break end
  local size = num(redis.call('HGET', sizes, oldest))
  redis.call('DEL', P .. 'cache:' .. oldest)
  redis.call('HDEL', sizes, oldest)
  total = redis.call('HINCRBY', sizes, 'total', -size)
  gone = gone + 1
end
return gone
