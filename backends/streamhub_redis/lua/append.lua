-- Store one append: chunks, metadata and end, all or none; then tell who follows the stream.
--
-- KEYS  meta, log
-- ARGV  generation
--       channel's suffix
--       end as JSON, or empty
--       metadata as JSON, or empty
--       index of the chunk before its first one
--       index of its last chunk; the same for an end alone
--       nonce
--       bytes of its chunks
--       hint: published with the records behind it; empty to publish nothing but that there is something
--       then, for each record: index of its last chunk, record; none for an end alone
-- Returns 1 if it is stored now, or was already, 2 if somebody here was told of it; otherwise why not:
--   {missing} {deleted} {expired} {format, found} {stale, generation} {behind, generation} {ended, end, run}
--   {conflict, tail} {limit, name, value} {lost}
-- Reads before it writes, and publishes last: an error on the way leaves nothing half done.

-- Return a record as it is stored, with the nonce behind it (see entries.py).
local function entry_of(record, nonce, attended)
    if string.byte(record) ~= 0x84 then
        return record .. nonce
    elseif attended then
        return record .. string.sub(nonce, 1, 4)
    end
    return '\136' .. string.sub(record, 2) .. nonce
end

-- Say whether an entry was stored with a nonce.
local function carries(entry, nonce)
    local length = string.byte(entry) == 0x84 and 4 or 8
    return string.sub(entry, -length) == string.sub(nonce, 1, length)
end

local meta, log = KEYS[1], KEYS[2]
local generation, suffix, finish, metadata = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local before, last, nonce, size, hint = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local RECORDS = 10

local found = redis.call('HMGET', meta,
    'generation', 'state', 'tail', 'first', 'size', 'deadline', 'armed', 'retention', 'format', 'attended')
local current, tail, first, armed = found[1], found[3], found[4], tonumber(found[7])
if not current then
    return unwritten({ 'missing' })
end
if found[9] ~= FORMAT then
    return unwritten({ 'format', found[9] })
end
local now = now_ms()
local unfinished, ended, fence, max_bytes, max_chunks, overflow = limits(found[8])
local state = state_at(now, found[2], found[6], fence)
if state ~= 'open' and state ~= 'ended' then
    return unwritten({ state or 'missing' })
end
if generation ~= current then
    return unwritten({ less(generation, current) and 'stale' or 'behind', current })
end

if tail ~= before or state == 'ended' then
    local stored = redis.call('HMGET', meta, 'nonce', 'end', 'run')
    local same = stored[1] == nonce
    if not same and ARGV[RECORDS] then
        local entry = redis.call('XRANGE', log, string.format('%s-%.0f', generation, before + 1), '+', 'COUNT', 1)[1]
        same = entry and carries(entry[2][2], nonce)
    end
    if same then
        -- A write that changes nothing: WAIT counts only what was written on the same connection.
        redis.call('HSET', meta, 'generation', generation)
        return 1
    elseif state == 'ended' then
        return unwritten({ 'ended', stored[2], stored[3] })
    end
    return unwritten({ 'conflict', tail })
end

local kept = found[5] + size
if ARGV[RECORDS] then
    if overflow == 'refuse' then
        if kept > max_bytes then
            return unwritten({ 'limit', 'max_bytes', max_bytes })
        elseif max_chunks > 0 and last - first + 1 > max_chunks then
            return unwritten({ 'limit', 'max_chunks', max_chunks })
        end
    end
    local empty = tonumber(first) > tonumber(tail)
    for place = RECORDS, #ARGV, 2 do
        local id, entry = generation .. '-' .. ARGV[place], entry_of(ARGV[place + 1], nonce, found[10] == '1')
        if empty then
            redis.call('XADD', log, id, 'c', entry)
            redis.call('PEXPIREAT', log, armed)
            empty = false
        elseif not redis.call('XADD', log, 'NOMKSTREAM', id, 'c', entry) then
            return unwritten({ 'lost' })
        end
    end
end

if not ARGV[RECORDS] then
    write_anyway()
end
local deadline = now + (finish == '' and unfinished or ended)
redis.call('HSET', meta, 'tail', last, 'size', kept, 'deadline', deadline)
if finish ~= '' then
    redis.call('HSET', meta, 'state', 'ended', 'end', finish, 'nonce', nonce, 'armed', deadline)
    arm(meta, log, deadline, fence)
elseif deadline > armed then
    armed = armed_for(deadline, unfinished)
    redis.call('HSET', meta, 'armed', armed)
    arm(meta, log, armed, fence)
end
if metadata ~= '' then
    redis.call('HSET', meta, 'metadata', metadata)
end
if overflow == 'trim' and (kept > max_bytes or (max_chunks > 0 and last - first >= max_chunks)) then
    local edge, left = trim(log, tonumber(first), tonumber(last), kept, max_bytes, max_chunks)
    redis.call('HSET', meta, 'first', edge, 'size', left)
end
if hint ~= '' then
    hint = { hint }
    for place = RECORDS + 1, #ARGV, 2 do
        hint[#hint + 1] = ARGV[place]
    end
    hint = table.concat(hint)
end
return redis.call('PUBLISH', log .. suffix, hint) > 0 and 2 or 1
