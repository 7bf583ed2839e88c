-- Begin a lease's time anew.
--
-- KEYS  lease
-- ARGV  generation, owner, time-to-live in milliseconds
-- Returns 1 if it is still owned, 0 if it is lost or has run out.
local lease = KEYS[1]
local found = redis.call('HMGET', lease, 'generation', 'owner', 'until')
local now = now_ms()
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] or now >= tonumber(found[3]) then
    return unwritten(0)
end
write_anyway()
local expires = now + tonumber(ARGV[3])
redis.call('HSET', lease, 'until', expires)
redis.call('PEXPIREAT', lease, math.max(expires, known_until(found[1], now)))
return 1
