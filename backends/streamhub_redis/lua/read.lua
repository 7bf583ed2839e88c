-- Read a page of chunks, with what describes their run.
--
-- KEYS  meta, log
-- ARGV  index after which to begin
--       how many chunks, and how many bytes, are enough
-- Returns {now, {field, value, ...}, index of the first entry's last chunk, {entry, ...}, id of the last entry, most};
--   nil if nothing is stored. Entries are whole: the first may begin before the page, the last may reach beyond it. The
--   index is 0 and there are no entries where there is nothing to read, -1 where there should be: the log is gone, but
--   not what describes it. Where the page goes on behind the last entry, ``most`` is how many more to ask for at once;
--   else 0. They need not come through here: to hand a value to a script takes ten times as long as to find it, for Lua
--   hashes each of its bytes.
local meta, log = KEYS[1], KEYS[2]
local FEW, FEW_BYTES = 16, 4096
local next_index, max_chunks, max_bytes = ARGV[1] + 1, tonumber(ARGV[2]), tonumber(ARGV[3])
local found = redis.call('HMGET', meta, 'state', 'deadline', 'retention', 'first', 'tail', 'size', 'spans', 'format')
local fields = redis.call('HGETALL', meta)
if not fields[1] then
    return nil
end
local now = now_ms()
local first, tail, size = tonumber(found[4]), tonumber(found[5]), tonumber(found[6])
if found[8] ~= FORMAT or found[1] == 'deleted' or now >= tonumber(found[2]) or next_index < first or next_index > tail then
    return { now, fields, 0, {}, '', 0 }
end

local generation
for opened, start in string.gmatch(found[7], '(%d+)%-(%d+)') do
    if tonumber(start) <= next_index then
        generation = opened
    end
end
-- An entry holds what was flushed together: ask for about as many as the page has room for.
local length = math.max(redis.call('XLEN', log), 1)
local wanted = math.min(max_chunks * length / (tail - first + 1), max_bytes * length / (size + 1))
local most = math.max(1, math.min(1024, math.ceil(wanted)))
-- But small ones may stand before large ones: begin with one, and go on with more while those found are small.
local count = 1
local from = string.format('%s-%.0f', generation, next_index)
local entries, head, newest, taken, bytes = {}, -1, '', 0, 0
repeat
    local page = redis.call('XRANGE', log, from, '+', 'COUNT', count)
    for _, found_entry in ipairs(page) do
        local entry = found_entry[2][2]
        entries[#entries + 1] = entry
        bytes = bytes + #entry
    end
    if page[1] then
        if head < 0 then
            head = tonumber(string.match(page[1][1], '%-(%d+)$'))
        end
        newest = page[#page][1]
        taken = string.match(newest, '%-(%d+)$') - next_index + 1
        from = '(' .. newest
    end
    if #page < count or taken >= max_chunks or bytes >= max_bytes then
        most = 0
    end
    count = math.min(most, count * 4)
until most == 0 or #entries >= FEW or bytes >= FEW_BYTES
return { now, fields, head, entries, newest, most }
