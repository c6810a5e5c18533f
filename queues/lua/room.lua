-- How many more jobs of a tenant and lane the bounds of a model's ready set let in now; none where their bytes are reached.
-- ARGV model tenant lane, then the bounds   -> number
local most = {unpack(ARGV, 4)}
local jobs, bytes, of_lane, mine, my_bytes = held_of(ARGV[1], ARGV[2], ARGV[3])
if bytes >= num(most[2]) or my_bytes >= num(most[5]) then return 0 end
return math.max(math.min(num(most[1]) - jobs, num(most[3]) - of_lane, num(most[4]) - mine), 0)
