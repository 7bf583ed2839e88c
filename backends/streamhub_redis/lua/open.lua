-- Begin a run, or continue it, under a generation; all lower ones are fenced from then on.
--
-- KEYS  meta, log
-- ARGV  generation, owner, run
--       expected generation, or empty for nothing stored; expected state
--       1 to resume; 1 if attended
--       metadata as JSON, or empty to keep what is there
--       retention
--       channel's suffix
-- Returns {ok, now, {field, value, ...}} as stored; otherwise why not:
--   {stale, generation} {deleted} {expired} {unexpected, generation, state} (empty: nothing stored)
--   {unfinished, run} {format, found} {lost} (its log is gone, but not what describes it)
local meta, log = KEYS[1], KEYS[2]
local generation, owner, run, retention = ARGV[1], ARGV[2], ARGV[3], ARGV[9]
local resume, attended = ARGV[6] == '1', ARGV[7]

local found = redis.call('HMGET', meta,
    'generation', 'owner', 'run', 'attended', 'spans', 'state', 'deadline', 'retention', 'format', 'first', 'tail')
local current, state = found[1], nil
local now = now_ms()
if current then
    if found[9] ~= FORMAT then
        return unwritten({ 'format', found[9] })
    end
    local _, _, fence = limits(found[8])
    state = state_at(now, found[6], found[7], fence)
end
if not state then
    current = nil
end

-- Say whether chunks are described of which nothing is there.
local function damaged()
    return tonumber(found[10]) <= tonumber(found[11]) and redis.call('XLEN', log) == 0
end

if current then
    if less(generation, current) or (generation == current and owner ~= found[2]) then
        return unwritten({ 'stale', current })
    elseif generation == current then
        if state == 'deleted' or state == 'expired' then
            return unwritten({ state })
        end
        if damaged() then
            return unwritten({ 'lost' })
        end
        -- A write that changes nothing: WAIT counts only what was written on the same connection.
        redis.call('HSET', meta, 'generation', generation)
        return { 'ok', now, redis.call('HGETALL', meta) }
    end
end
if (current or '') ~= ARGV[4] or (state or '') ~= ARGV[5] or (resume and (state ~= 'open' or run ~= found[3])) then
    return unwritten({ 'unexpected', current or '', state or '' })
end
if state == 'open' and found[4] == '1' and attended == '0' then
    return unwritten({ 'unfinished', found[3] })
end

if resume and damaged() then
    return unwritten({ 'lost' })
end

local unfinished, _, fence = limits(retention)
local deadline = now + unfinished
local armed = armed_for(deadline, unfinished)
if resume then
    local spans = string.format('%s,%s-%.0f', found[5], generation, found[11] + 1)
    redis.call('HSET', meta, 'generation', generation, 'owner', owner, 'attended', attended, 'spans', spans,
        'retention', retention, 'deadline', deadline, 'armed', armed)
else
    -- First, what needs memory: a server that has none left refuses it, and nothing is done.
    redis.call('HSET', meta, 'format', FORMAT, 'generation', generation, 'owner', owner, 'run', run,
        'attended', attended, 'spans', generation .. '-1', 'state', 'open', 'first', '1', 'tail', '0', 'size', '0',
        'retention', retention, 'deadline', deadline, 'armed', armed)
    redis.call('HDEL', meta, 'end', 'nonce', 'metadata')
    redis.call('UNLINK', log)
end
if ARGV[8] ~= '' then
    redis.call('HSET', meta, 'metadata', ARGV[8])
end
arm(meta, log, armed, fence)
redis.call('PUBLISH', log .. ARGV[10], '')
return { 'ok', now, redis.call('HGETALL', meta) }
