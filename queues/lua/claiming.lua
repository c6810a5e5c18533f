-- Who is served next; used by claim and finish.
-- What came of a promise that was made at `since`. The model's next promises follow it slowly, within a tenfold either way.
local function keep_promise(model, promised, since, time)
  local ratio, key, O = (time - since) / promised, P .. 'promised:' .. model, order_key(model)
  local known = redis.call('HMGET', O, 'cal', 'calm')
  if since <= num(known[2]) then return end -- what an operator has paused since says nothing of promises
  redis.call('HINCRBY', key, 'count', 1)
  redis.call('HINCRBYFLOAT', key, 'sum', text(ratio))
  for _, bound in ipairs({0.25, 0.5, 0.8, 1.25, 2, 4}) do
    if ratio <= bound then redis.call('HINCRBY', key, 'le:' .. bound, 1) end
  end
  local cal = num(known[1])
  if cal <= 0 then cal = 1 end
  redis.call('HSET', O, 'cal', text(0.95 * cal + 0.05 * math.min(math.max(cal * ratio, 0.1), 10)))
end

-- Lanes whose jobs may not start now, or nil when none may: the model is paused or runs all it may, or the replica or
-- its node is drained.
local function closed_lanes(model, replica, node)
  local closed, none = {}, true
  if not controlled then return closed, none end
  local set = control('pause:model:' .. model, 'drain:replica:' .. replica, 'drain:node:' .. node, 'running:model:' .. model,
    'pause:lane:high', 'pause:lane:medium', 'pause:lane:low',
    'running:lane:' .. model .. ' high', 'running:lane:' .. model .. ' medium', 'running:lane:' .. model .. ' low')
  local running = redis.call('HMGET', order_key(model), 'run', 'rl:high', 'rl:medium', 'rl:low')
  if set[1] or set[2] or set[3] or (set[4] and num(running[1]) >= num(set[4])) then return nil end
  for i, l in ipairs(INITIALS) do
    if set[4 + i] or (set[7 + i] and num(running[1 + i]) >= num(set[7 + i])) then closed[l], none = true, false end
  end
  return closed, none
end

-- The tenant that is served next, its key, and its first job: id, score, lane's initial. With all lanes open it is the
-- first of the set. Otherwise another job of a tenant may be its first, at another key: all tenants are looked at whose
-- key could become the smallest.
local function next_job(model, closed, all_open)
  local T, O = P .. 'tenants:' .. model, order_key(model)
  if all_open then
    local top = redis.call('ZRANGE', T, 0, 0, 'WITHSCORES')
    if not top[1] then return nil end
    return top[1], tonumber(top[2]), first_of(model, top[1], closed)
  end
  local best, best_key, best_id, best_score, best_l
  local at, most = 0, math.max(H.h, H.m, H.l)
  while true do
    local page = redis.call('ZRANGE', T, at, at + 99, 'WITHSCORES')
    for i = 1, #page, 2 do
      if best_key and tonumber(page[i + 1]) - most >= best_key then page = {} break end
      local id, score, l = first_of(model, page[i], closed)
      if id then
        local key = FAIR and num(redis.call('HGET', O, 'S:' .. page[i])) - H[l] or score
        if not best_key or key < best_key then best, best_key, best_id, best_score, best_l = page[i], key, id, score, l end
      end
    end
    if #page < 200 then return best, best_key, best_id, best_score, best_l end
    at = at + 100
  end
end

-- Takes the best waiting job for a replica and returns its id, or nil when nothing waits; then the slot, if one is
-- named, is noted as lingering. Jobs that nobody may run are dropped on the way, so many in one call (Redis serves
-- nobody else meanwhile): nil, true asks for another call.
local function claim(model, replica, node, token, lease, slot, linger)
  local O = order_key(model)
  local closed, all_open = closed_lanes(model, replica, node)
  for _ = 1, DROPS do
    local tenant, key, id, score, l
    if closed then tenant, key, id, score, l = next_job(model, closed, all_open) end
    if not tenant then
      if slot ~= '' then redis.call('ZADD', P .. 'linger:' .. model, text(now() + linger), slot .. replica) end
      return nil
    end
    if not id then
      redis.call('ZREM', P .. 'tenants:' .. model, tenant)
    else
      local known = redis.call('HMGET', P .. 'job:' .. id, 'state', 'est', 'lane', 'size', 'gen', 'attempt', 'kept', 'reply',
        'expires', 'eta', 'queued')
      local job = {state = known[1], est = known[2], lane = known[3], size = known[4], gen = known[5], attempt = known[6],
        kept = known[7], reply = known[8], expires = known[9], eta = known[10], queued = known[11], model = model,
        tenant = tenant}
      if job.state ~= 'queued' then
        drop(model, tenant, l, id)
      elseif job.reply and job.kept ~= '1' and redis.call('EXISTS', P .. 'reply:' .. job.reply) == 0 then
        leave(id, model, tenant, job.lane, num(job.est), num(job.size))
        local message = 'nobody waits for the answer any more'
        local failure = cjson.encode({code = 'caller_gone', message = message, status = 499, param = cjson.null})
        settle_state(id, job, 'cancelled', {'error', failure})
      elseif job.expires and num(job.expires) <= now() then
        leave(id, model, tenant, job.lane, num(job.est), num(job.size))
        expire(id, job)
      else
        local time, est = now(), num(job.est)
        if FAIR then
          known = redis.call('HMGET', O, 'v', 'vt:' .. tenant, 'S:' .. tenant, 'w:' .. tenant)
          local w = num(known[4])
          redis.call('HSET', O, 'v', text(math.max(num(known[1]), key)), 'vt:' .. tenant, text(math.max(num(known[2]), score)),
            'S:' .. tenant, text(num(known[3]) + est / (w > 0 and w or 1)), 'C:' .. tenant .. ':' .. job.lane,
            text(score + H[l] + est))
        end
        run(id, model, tenant, job.lane, time + lease, 1)
        leave(id, model, tenant, job.lane, est, num(job.size), true)
        redis.call('HSET', P .. 'job:' .. id, 'state', 'running', 'token', token, 'replica', replica,
          'started', text(time), 'attempt', num(job.attempt) + 1)
        if job.eta then
          keep_promise(model, num(job.eta), num(job.queued), time)
          redis.call('HDEL', P .. 'job:' .. id, 'eta')
        end
        -- A slot that something else than a wake called is still noted.
        if slot ~= '' then redis.call('ZREM', P .. 'linger:' .. model, slot .. replica) end
        tell(job, id, 'state', 'running')
        return id
      end
    end
  end
  return nil, true
end
