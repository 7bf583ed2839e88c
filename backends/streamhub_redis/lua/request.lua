-- Store a cancel request, unless there is one, then tell the producer; also once more, if it was told before.
--
-- KEYS  request
-- ARGV  request as JSON, time-to-live in milliseconds, channel's suffix
-- Returns 1 if this call stored it.
local stored = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
local request = stored and ARGV[1] or redis.call('GET', KEYS[1])
redis.call('PUBLISH', KEYS[1] .. ARGV[3], request)
return stored and 1 or 0
