-- Take a lease, with a generation greater than all before.
--
-- KEYS  lease
-- ARGV  owner, run, time-to-live in milliseconds, generation to exceed, generation up to which a lease is void
-- Returns {1, generation}, or {0, generation, run, milliseconds left} of the lease that another owner holds.
--
-- A generation is at least the clock's milliseconds, so that one is never given twice though nothing of a lease is
-- kept: the key stays until the lease is over and the clock has passed its generation (see lease.lua).
local lease, owner, above = KEYS[1], ARGV[1], ARGV[4]
local found = redis.call('HMGET', lease, 'generation', 'owner', 'run', 'until')
local current, expires = found[1] or '0', tonumber(found[4]) or 0
local now = now_ms()
local mine = false
if now < expires and less(ARGV[5], current) then
    if found[2] ~= owner then
        return unwritten({ 0, current, found[3], expires - now })
    end
    mine = less(above, current)
end
if not mine then
    local highest = less(above, current) and current or above
    local clock = string.format('%.0f', now - 1)
    redis.call('HSET', lease, 'generation', less(highest, clock) and clock or highest)
    redis.call('HINCRBY', lease, 'generation', 1)
end
expires = now + tonumber(ARGV[3])
local generation = redis.call('HGET', lease, 'generation')
redis.call('HSET', lease, 'owner', owner, 'run', ARGV[2], 'until', expires)
redis.call('PEXPIREAT', lease, math.max(expires, known_until(generation, now)))
return { 1, generation }
