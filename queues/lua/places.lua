-- Where a waiting job stands, and when it is expected to start; used by accept and standing.
-- How many of a tenant's waiting jobs come before a score.
local function waiting_before(model, tenant, score)
  local jobs = 0
  for _, l in ipairs(INITIALS) do jobs = jobs + redis.call('ZCOUNT', ready_key(model, tenant, l), '-inf', '(' .. score) end
  return jobs
end

-- How many jobs of another tenant are served until the key `reached` is: lane after lane, each job `each` seconds long,
-- from its virtual time S on.
local function served_until(model, tenant, reached, S, w, each)
  local jobs = 0
  for _, l in ipairs(INITIALS) do
    local ahead = (reached + H[l] - S) * w
    if ahead >= 0 then
      local n = redis.call('ZCARD', ready_key(model, tenant, l))
      if each > 0 then n = math.min(n, math.floor(ahead / each) + 1) end
      jobs, S = jobs + n, S + n * each / w
    end
  end
  return jobs
end

-- {own rank and estimated jobs of others ahead, device seconds ahead} of a waiting job.
local function standing(id, job)
  local model, tenant, O = job.model, job.tenant, order_key(job.model)
  local score = redis.call('ZSCORE', ready_key(model, tenant, initial(job.lane)), id)
  if not score then return {-1, '0'} end
  local rank, upto = 0, score -- of equal scores the higher lane's is first
  for _, l in ipairs(INITIALS) do
    local Q = ready_key(model, tenant, l)
    if l == initial(job.lane) then
      rank, upto = rank + redis.call('ZRANK', Q, id), '(' .. score
    else
      rank = rank + redis.call('ZCOUNT', Q, '-inf', upto)
    end
  end
  local function of(t)
    local known = redis.call('HMGET', O, 'S:' .. t, 'w:' .. t, 'q:' .. t, 'est:' .. t)
    local w, n, est = num(known[2]), num(known[3]), num(known[4])
    return num(known[1]), w > 0 and w or 1, n > 0 and est / n or 0
  end
  local S, w, mean = of(tenant)
  local jobs, seconds = rank, rank * mean
  local reached = FAIR and S - H[initial(job.lane)] + seconds / w or tonumber(score)
  local others = redis.call('ZRANGE', P .. 'tenants:' .. model, 0, 255, 'WITHSCORES')
  for i = 1, #others, 2 do
    if others[i] ~= tenant and tonumber(others[i + 1]) <= reached then
      local So, wo, each = of(others[i])
      local ahead = FAIR and served_until(model, others[i], reached, So, wo, each) or waiting_before(model, others[i], score)
      jobs, seconds = jobs + ahead, seconds + ahead * each
    end
  end
  return {jobs, text(seconds)}
end

-- Seconds until a job with so much work ahead is expected to start: `servers` replicas do a device second per second,
-- the first of them in `delay` seconds, and `cal` is what promises of this model have been wrong by. Nil: nobody serves, or
-- nobody may.
local function expected(job, ahead, servers, delay)
  if servers <= 0 then return nil end
  if controlled then
    local paused = control('pause:model:' .. job.model, 'pause:lane:' .. job.lane)
    if paused[1] or paused[2] or barred(job.model, job.tenant) then return nil end
  end
  local cal = num(redis.call('HGET', order_key(job.model), 'cal'))
  return delay + ahead / servers * (cal > 0 and cal or 1)
end
