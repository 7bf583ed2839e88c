-- Remove a stream and leave a fence.
--
-- KEYS  meta, log
-- ARGV  channel's suffix
-- Returns 1 if it was there, 0 if nothing was, or a fence; {format, found} if it cannot be judged.
local meta, log = KEYS[1], KEYS[2]
local found = redis.call('HMGET', meta, 'state', 'deadline', 'retention', 'tail', 'format')
if not found[1] then
    return unwritten(0)
end
if found[5] ~= FORMAT then
    return unwritten({ 'format', found[5] })
end
local now = now_ms()
if found[1] == 'deleted' or now >= tonumber(found[2]) then
    return unwritten(0)
end
local _, _, fence = limits(found[3])
redis.call('UNLINK', log)
redis.call('HSET', meta, 'state', 'deleted', 'first', string.format('%.0f', found[4] + 1), 'size', '0',
    'deadline', now + fence)
redis.call('HDEL', meta, 'metadata')
redis.call('PEXPIREAT', meta, now + fence)
redis.call('PUBLISH', log .. ARGV[1], '')
return 1
