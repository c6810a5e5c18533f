-- ARGV id   -> {position from 0 or -1, device seconds ahead}
local job = job_fields(ARGV[1], 'state', 'model', 'tenant', 'lane')
if job.state ~= 'queued' then return {-1, '0'} end
return standing(ARGV[1], job)
