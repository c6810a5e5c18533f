-- Adds the device seconds of earlier days, once. ARGV tenant day seconds ...   -> 1, or 0 when they are there already
begin_freeing()
if not redis.call('SET', P .. 'spent', '1', 'NX') then return 0 end
for i = 1, #ARGV, 3 do
  redis.call('HINCRBYFLOAT', P .. 'spent:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2])
  redis.call('EXPIRE', P .. 'spent:' .. ARGV[i], 35 * 86400)
end
return 1
