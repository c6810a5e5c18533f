-- Ends an attempt, answers its caller, and takes the next job for the freed slot, all at once.
-- ARGV op id token outcome seconds frame next model replica next_token lease slot linger, then field value ... to write
-- outcome  succeeded | failed | cancelled    terminal
--          retry                             attempts left: queued again, else failed with the given fields
--          handback                          queued again, the attempt is not counted (three times at most)
-- frame    reply for the caller, sent only if this call makes the job terminal
--   -> {state the job is in now or 'stale', {next job as field, value, ...}}
begin_freeing()
local op, id, token, outcome, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], num(ARGV[5])
local before = replayed(op)
if before then return {before[1], attempt_of(before[2], ARGV[10])} end
local job = job_fields(id, 'state', 'token', 'model', 'tenant', 'lane', 'est', 'size', 'score', 'gen', 'attempt', 'max',
  'units', 'reply', 'kept', 'handbacks', 'first')
local state = 'stale'
if job.state == 'running' and job.token == token then
  -- 1. Handed back: as if it had never been claimed.
  if outcome == 'handback' and num(job.handbacks) < 3 and not job.first then
    redis.call('HSET', P .. 'job:' .. id, 'attempt', num(job.attempt) - 1, 'handbacks', num(job.handbacks) + 1)
    queue_again(id, job)
    state = 'queued'
  -- 2. Another attempt, unless the caller has seen part of the answer.
  elseif (outcome == 'retry' or outcome == 'handback') and num(job.attempt) < num(job.max) and not job.first then
    queue_again(id, job)
    state = 'queued'
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
      if job.first then
        fail(id, job, 'stream_broken', 'the replica stopped after the answer had begun', 502)
      else
        fail(id, job, 'replica_stopped', 'its replicas stopped before the job could end', 503)
      end
    else
      settle_state(id, job, state, {unpack(ARGV, 14)})
      reply(job.reply, ARGV[6])
    end
  end
end
local following = ARGV[7] == '1' and claim(ARGV[8], ARGV[9], ARGV[10], num(ARGV[11]), ARGV[12], num(ARGV[13])) or ''
remember(op, {state, following})
return {state, following ~= '' and attempt_of(following, ARGV[10]) or {}}
