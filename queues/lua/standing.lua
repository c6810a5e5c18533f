-- ARGV id servers delay   -> {position from 0 or -1, device seconds ahead, seconds until it is expected to start or ''}
local job = job_fields(ARGV[1], 'state', 'model', 'tenant', 'lane')
if job.state ~= 'queued' then return {-1, '0', ''} end
local place = standing(ARGV[1], job)
local eta = expected(job, num(place[2]), num(ARGV[2]), num(ARGV[3]))
return {place[1], place[2], eta and text(eta) or ''}
