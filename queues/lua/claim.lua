-- ARGV op model replica token lease slot linger   -> {} or the job as field, value, ...; {'again'} when there is more to look at
begin_freeing()
local before = replayed(ARGV[1])
if before then return attempt_of(before, ARGV[4]) end
local id, more = claim(ARGV[2], ARGV[3], ARGV[4], num(ARGV[5]), ARGV[6], num(ARGV[7]))
if not id then return more and {'again'} or {} end
remember(ARGV[1], id)
return attempt_of(id, ARGV[4])
