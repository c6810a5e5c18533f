-- Whether a bound of a model's ready set is reached now. Keeps no place.
-- ARGV model tenant lane, then the bounds   -> {status, device seconds ahead}
return {over_bound(ARGV[1], ARGV[2], ARGV[3], 1, {unpack(ARGV, 4)}), backlog(ARGV[1])}
