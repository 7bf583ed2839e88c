-- Describe a stream, or the fence it left; on request, begin an un-ended run's retention anew.
--
-- KEYS  meta, log
-- ARGV  1 to touch
-- Returns {now, {field, value, ...}}; nil if nothing is stored.
local meta, log = KEYS[1], KEYS[2]
local now = now_ms()
if ARGV[1] == '1' then
    local found = redis.call('HMGET', meta, 'state', 'deadline', 'armed', 'retention', 'format')
    if found[5] == FORMAT and found[1] == 'open' and now < tonumber(found[2]) then
        local unfinished, _, fence = limits(found[4])
        local deadline = math.max(tonumber(found[2]), now + unfinished)
        write_anyway()
        redis.call('HSET', meta, 'deadline', deadline)
        if deadline > tonumber(found[3]) then
            local armed = armed_for(deadline, unfinished)
            redis.call('HSET', meta, 'armed', armed)
            arm(meta, log, armed, fence)
        end
    end
end
local fields = redis.call('HGETALL', meta)
return fields[1] and { now, fields } or nil
