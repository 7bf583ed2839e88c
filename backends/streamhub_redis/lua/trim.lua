-- Part of `append`: remove the oldest chunks until the caps hold, never the last one. Whole entries go from the log;
-- of one that is kept in part, `first` says what still counts.
local byte = string.byte

local function varint(record, at)
    local value, scale = 0, 1
    while true do
        local octet = byte(record, at)
        at = at + 1
        if octet < 128 then
            return value + octet * scale, at
        end
        value, scale = value + (octet - 128) * scale, scale * 128
    end
end

-- Returns how many chunks an entry holds, and where their lengths begin; of a lone chunk, its length.
local function table_of(entry)
    local head = byte(entry)
    if head == 0x84 or head == 0x88 then
        return 1, nil, #entry - 1 - (head - 0x80)
    end
    return varint(entry, 2)
end

-- Returns the new first index and size.
local function trim(log, first, last, size, max_bytes, max_chunks)
    local least = max_chunks > 0 and last - max_chunks + 1 or first
    local from, gone = '-', nil
    while first < last and (size > max_bytes or first < least) do
        local oldest = redis.call('XRANGE', log, from, '+', 'COUNT', 1)[1]
        local id, entry = oldest[1], oldest[2][2]
        local newest = tonumber(string.match(id, '%-(%d+)$'))
        local count, at, length = table_of(entry)
        local index = newest - count + 1
        while index <= newest and first < last and (size > max_bytes or first < least) do
            if at then
                length, at = varint(entry, at)
            end
            if index == first then
                size, first = size - length, first + 1
            end
            index = index + 1
        end
        if first <= newest then
            break
        end
        from, gone = '(' .. id, id
    end
    if gone then
        local generation, newest = string.match(gone, '^(%d+)%-(%d+)$')
        redis.call('XTRIM', log, 'MINID', '=', string.format('%s-%.0f', generation, newest + 1))
    end
    return first, size
end
