-- Takes the tokens of a job whose size was not known when it was accepted out of its tenant's bucket.
-- ARGV tenant, requests and tokens per minute, tokens of this one   -> 'ok'
return (take(ARGV[1], num(ARGV[2]), num(ARGV[3]), num(ARGV[4]), true))
