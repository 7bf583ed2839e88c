-- Begin a page of chunks, with what describes their run.
--
-- KEYS  meta, log
-- ARGV  index after which to begin
--       how many chunks, and how many bytes, are enough
-- Returns {now, {field, value, ...}, what, {{id, {name, entry}}, ...}}; nil if nothing is stored. What: 0 if that is all
--   the page has room for, or all there is; 1 if it goes on behind the last entry; -1 if the log is gone, but not what
--   describes it. Entries are whole: the first may begin before the page, the last may reach beyond it.
-- How a page goes on is for whoever asks to read (see paging.py): what a script returns keeps the server busy ten times
-- as long as to find it, for Lua hashes each of its bytes.
local meta, log = KEYS[1], KEYS[2]
local next_index, max_chunks, max_bytes = ARGV[1] + 1, tonumber(ARGV[2]), tonumber(ARGV[3])
local FEW, FEW_BYTES = 16, 4096
local found = redis.call('HMGET', meta, 'state', 'deadline', 'first', 'tail', 'spans', 'format')
local fields = redis.call('HGETALL', meta)
if not fields[1] then
    return nil
end
local now = now_ms()
local first, tail = tonumber(found[3]), tonumber(found[4])
if found[6] ~= FORMAT or found[1] == 'deleted' or now >= tonumber(found[2]) or next_index < first or next_index > tail then
    return { now, fields, 0, {} }
end

local generation
for opened, start in string.gmatch(found[5], '(%d+)%-(%d+)') do
    if tonumber(start) <= next_index then
        generation = opened
    end
end
-- Small ones may stand before large ones: begin with one, and go on with more while those found are small.
local count, from, what = 1, string.format('%s-%.0f', generation, next_index), 1
local entries, bytes = {}, 0
repeat
    local page = redis.call('XRANGE', log, from, '+', 'COUNT', count)
    for _, entry in ipairs(page) do
        entries[#entries + 1] = entry
        bytes = bytes + #entry[2][2]
    end
    local newest = #entries > 0 and entries[#entries][1]
    if not newest then
        what = -1
    elseif #page < count or bytes >= max_bytes
        or string.match(newest, '%-(%d+)$') - next_index + 1 >= max_chunks then
        what = 0
    else
        from = '(' .. newest
        count = count * 4
    end
until what ~= 1 or #entries >= FEW or bytes >= FEW_BYTES
return { now, fields, what, entries }
