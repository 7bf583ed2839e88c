-- Give a lease up; nothing happens if it is another's by now.
--
-- KEYS  lease
-- ARGV  generation, owner
-- Returns 1 if it was given up.
local lease = KEYS[1]
local found = redis.call('HMGET', lease, 'generation', 'owner')
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then
    return unwritten(0)
end
local now = now_ms()
redis.call('HDEL', lease, 'owner')
redis.call('HSET', lease, 'until', '0')
redis.call('PEXPIREAT', lease, known_until(found[1], now))
return 1
