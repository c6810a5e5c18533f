-- Whether a bound of a model's ready set is reached now. Keeps no place.
-- ARGV model tenant max_jobs max_bytes max_tenant   -> {status, device seconds ahead}
local model, tenant = ARGV[1], ARGV[2]
return {over_bound(model, tenant, 1, num(ARGV[3]), num(ARGV[4]), num(ARGV[5])), backlog(model)}
