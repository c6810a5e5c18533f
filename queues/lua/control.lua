-- Writes what operators have paused, drained or limited, and gives the tenants concerned their place or takes it.
-- ARGV replace, then field value ...; an empty value takes the field away. replace 1: all that is not named goes
--   -> the fields that changed
begin_freeing()
local before = {}
local flat = redis.call('HGETALL', P .. 'control')
for i = 1, #flat, 2 do before[flat[i]] = flat[i + 1] end
local wanted = {}
if ARGV[1] == '1' then for field in pairs(before) do wanted[field] = '' end end
for i = 2, #ARGV, 2 do wanted[ARGV[i]] = ARGV[i + 1] end
local changed, tenants, everybody = {}, {}, false
for field, value in pairs(wanted) do
  if value ~= (before[field] or '') then
    changed[#changed + 1] = field
    if value == '' then redis.call('HDEL', P .. 'control', field) else redis.call('HSET', P .. 'control', field, value) end
    local kind, name = string.match(field, '^%l+:(%l+):?(.*)$')
    if kind == 'tenants' then everybody = true elseif kind == 'tenant' then tenants[#tenants + 1] = name end
  end
end
controlled = redis.call('EXISTS', P .. 'control') == 1
for _, model in ipairs(redis.call('SMEMBERS', P .. 'models')) do
  if #changed > 0 then redis.call('HSET', order_key(model), 'calm', text(now())) end
  for _, tenant in ipairs(everybody and waiting_tenants(model) or tenants) do rekey(model, tenant) end
end
return changed
