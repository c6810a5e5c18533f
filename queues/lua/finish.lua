-- Ends an attempt, answers its caller, and takes the next job for the freed slot, all at once.
-- ARGV op id token outcome seconds delay frame next model replica node next_token lease slot linger, then field value ...
-- outcome  succeeded | failed | cancelled    terminal
--          retry                             attempts left: queued again after `delay` seconds, else failed with the
--                                            given fields
--          handback                          queued again at once, the attempt is not counted (three times at most)
-- Of the device seconds of a run its tenant owes all, also when it was cancelled, and none when it is handed back.
-- A job that failed for good and may be given to another model is 'scheduled' until that is done.
-- frame    reply for the caller, sent only if this call makes the job terminal
--   -> {state the job is in now or 'stale', {next job as field, value, ...}}
begin_freeing()
local op, id, token, outcome, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], num(ARGV[5])
local before = replayed()
if before then return {before[1], attempt_again(before[2], ARGV[12])} end
local known = redis.call('HMGET', P .. 'job:' .. id, 'state', 'token', 'model', 'tenant', 'lane', 'est', 'size', 'score', 'gen',
  'attempt', 'max', 'units', 'reply', 'kept', 'handbacks', 'first', 'expires', 'used', 'chain')
local job = {state = known[1], token = known[2], model = known[3], tenant = known[4], lane = known[5], est = known[6],
  size = known[7], score = known[8], gen = known[9], attempt = known[10], max = known[11], units = known[12],
  reply = known[13], kept = known[14], handbacks = known[15], first = known[16], expires = known[17], used = known[18],
  chain = known[19]}
local state = 'stale'
local trusted = job.state == 'running' and job.token == token
local back = trusted and outcome == 'handback' and num(job.handbacks) < 3 and not job.first
local owes = job.state == 'cancelled' and redis.call('HGET', P .. 'job:' .. id, 'owes') == token
if seconds > 0 and (trusted or owes) and not back then
  local key, today = P .. 'spent:' .. job.tenant, math.floor(now() / 86400)
  -- The first of its day: what no month asks for any more goes, and all of it when the tenant stays away.
  if num(redis.call('HINCRBYFLOAT', key, text(today), text(seconds))) <= seconds then
    redis.call('EXPIRE', key, 35 * 86400)
    for _, day in ipairs(redis.call('HKEYS', key)) do
      if num(day) < today - 35 then redis.call('HDEL', key, day) end
    end
  end
end
if owes then
  redis.call('HDEL', P .. 'job:' .. id, 'owes')
  redis.call('HSET', P .. 'job:' .. id, 'used', text(num(job.used) + seconds))
  charge(job.model, job.tenant, seconds - num(job.est))
elseif trusted then
  local used = {'used', text(num(job.used) + seconds)}
  -- 1. Handed back: as if it had never been claimed.
  if back then
    redis.call('HSET', P .. 'job:' .. id, 'attempt', num(job.attempt) - 1, 'handbacks', num(job.handbacks) + 1)
    state = queue_again(id, job, 0, 0)
  -- 2. Another attempt, unless the caller has seen part of the answer.
  elseif (outcome == 'retry' or outcome == 'handback') and num(job.attempt) < num(job.max) and not job.first then
    redis.call('HSET', P .. 'job:' .. id, unpack(used))
    state = queue_again(id, job, outcome == 'retry' and num(ARGV[6]) or 0, seconds)
  -- 3. The end.
  else
    state = (outcome == 'retry' or outcome == 'handback') and 'failed' or outcome
    charge(job.model, job.tenant, seconds - num(job.est))
    if state == 'succeeded' and num(job.units) > 0 then
      local rate = num(redis.call('HGET', order_key(job.model), 'rate'))
      local seen = seconds / num(job.units)
      redis.call('HSET', order_key(job.model), 'rate', text(rate > 0 and 0.95 * rate + 0.05 * seen or seen))
    end
    if outcome == 'handback' then
      redis.call('HSET', P .. 'job:' .. id, unpack(used))
      if job.first then
        fail(id, job, 'stream_broken', 'the replica stopped after the answer had begun', 502)
      else
        fail(id, job, 'replica_stopped', 'its replicas stopped before the job could end', 503)
      end
    elseif state == 'failed' and ARGV[16] == 'error' and put_aside(id, job, ARGV[17]) then
      state = 'scheduled'
      redis.call('HSET', P .. 'job:' .. id, unpack(used))
    else
      settle_state(id, job, state, {used[1], used[2], unpack(ARGV, 16)})
      reply(job.reply, ARGV[7])
    end
  end
end
local following = ''
if ARGV[8] == '1' then
  following = claim(ARGV[9], ARGV[10], ARGV[11], ARGV[12], num(ARGV[13]), ARGV[14], num(ARGV[15])) or ''
end
remember(op, {state, following})
return {state, following ~= '' and attempt_of(following) or {}}
