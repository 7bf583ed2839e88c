-- Store one append: chunks, metadata and end, all or none; then tell who follows the stream.
--
-- KEYS  meta, log
-- ARGV  generation
--       index of the chunk before its first one
--       index of its last chunk; the same for an end alone
--       nonce
--       bytes of its chunks
--       record: its chunks, packed, and the nonce; empty for an end alone
--       hint: published with the record behind it; empty to publish nothing but that there is something
--       channel's suffix
--       end as JSON, or empty
--       metadata as JSON, or empty
-- Returns 1 if it is stored now, or was already; otherwise why not:
--   {missing} {deleted} {expired} {format, found} {stale, generation} {behind, generation} {ended, end, run}
--   {conflict, tail} {limit, name, value} {lost}
-- Reads before it writes, and publishes last: an error on the way leaves nothing half done.
local meta, log = KEYS[1], KEYS[2]
local generation, before, last, nonce, size, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local found = redis.call('HMGET', meta,
    'generation', 'state', 'tail', 'first', 'size', 'deadline', 'armed', 'retention', 'format')
local current, tail, first, armed = found[1], found[3], found[4], tonumber(found[7])
if not current then
    return { 'missing' }
end
if found[9] ~= FORMAT then
    return { 'format', found[9] }
end
local now = now_ms()
local unfinished, ended, fence, max_bytes, max_chunks, overflow = limits(found[8])
local state = state_at(now, found[2], found[6], fence)
if state ~= 'open' and state ~= 'ended' then
    return { state or 'missing' }
end
if generation ~= current then
    return { less(generation, current) and 'stale' or 'behind', current }
end

if tail ~= before or state == 'ended' then
    local stored = redis.call('HMGET', meta, 'nonce', 'end', 'run')
    local known = stored[1]
    if known ~= nonce and record ~= '' then
        local entry = redis.call('XRANGE', log, string.format('%s-%.0f', generation, before + 1), '+', 'COUNT', 1)[1]
        known = entry and string.sub(entry[2][2], -#nonce)
    end
    if known == nonce then
        -- A write that changes nothing: WAIT counts only what was written on the same connection.
        redis.call('HSET', meta, 'generation', generation)
        return 1
    elseif state == 'ended' then
        return { 'ended', stored[2], stored[3] }
    end
    return { 'conflict', tail }
end

local kept = found[5] + size
if record ~= '' then
    if overflow == 'refuse' then
        if kept > max_bytes then
            return { 'limit', 'max_bytes', max_bytes }
        elseif max_chunks > 0 and tonumber(last) > max_chunks then
            return { 'limit', 'max_chunks', max_chunks }
        end
    end
    local id = generation .. '-' .. last
    if tonumber(first) <= tonumber(tail) then
        if not redis.call('XADD', log, 'NOMKSTREAM', id, 'c', record) then
            return { 'lost' }
        end
    else
        redis.call('XADD', log, id, 'c', record)
        redis.call('PEXPIREAT', log, armed)
    end
end

local deadline = now + (ARGV[9] == '' and unfinished or ended)
redis.call('HSET', meta, 'tail', last, 'size', kept, 'deadline', deadline)
if ARGV[9] ~= '' then
    redis.call('HSET', meta, 'state', 'ended', 'end', ARGV[9], 'nonce', nonce, 'armed', deadline)
    arm(meta, log, deadline, fence)
elseif deadline > armed then
    armed = armed_for(deadline, unfinished)
    redis.call('HSET', meta, 'armed', armed)
    arm(meta, log, armed, fence)
end
if ARGV[10] ~= '' then
    redis.call('HSET', meta, 'metadata', ARGV[10])
end
if overflow == 'trim' and (kept > max_bytes or (max_chunks > 0 and last - first >= max_chunks)) then
    local edge, left = trim(log, tonumber(first), tonumber(last), kept, max_bytes, max_chunks)
    redis.call('HSET', meta, 'first', edge, 'size', left)
end
redis.call('PUBLISH', log .. ARGV[8], ARGV[7] == '' and '' or ARGV[7] .. record)
return 1
