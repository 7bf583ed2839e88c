-- Say who holds a lease now.
--
-- KEYS  lease
-- Returns {generation, run, milliseconds left}; nil if nobody does.
local found = redis.call('HMGET', KEYS[1], 'generation', 'run', 'until')
local left = (tonumber(found[3]) or 0) - now_ms()
return left > 0 and { found[1], found[2], left } or nil
