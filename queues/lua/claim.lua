-- ARGV op model replica node token lease slot linger   -> {} or the job as field, value, ...; {'again'} when there is more to look at
begin_freeing()
local before = replayed()
if before then return attempt_again(before, ARGV[5]) end
local id, more = claim(ARGV[2], ARGV[3], ARGV[4], ARGV[5], num(ARGV[6]), ARGV[7], num(ARGV[8]))
if not id then return more and {'again'} or {} end
remember(ARGV[1], id)
return attempt_of(id)
