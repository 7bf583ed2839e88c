-- Part of scripts: what the hash `meta` of a stream says.
--
--   format      1; whoever does not know it touches nothing
--   generation  of the last open; owner: the nonce of that open
--   run, attended (1 or 0), spans ("7-1,9-43"), metadata (JSON, absent if empty)
--   state       open, ended or deleted; expired is what the clock makes of open and ended
--   first, tail indexes of the chunks kept; size: their bytes
--   deadline    when the stream expires, or a deleted one's fence is over: milliseconds, by the server's clock
--   armed       when its log is removed by itself: not before the deadline, and not much after it
--   retention   "unfinished ended fence max_bytes max_chunks overflow", times in seconds, 0 for no max_chunks
--   end, nonce  the end as JSON, and the nonce of the append that brought it
local FORMAT = '1'

-- Read the retention: three times in milliseconds, two caps, what to do beyond them.
local function limits(retention)
    local unfinished, ended, fence, max_bytes, max_chunks, overflow =
        string.match(retention, '^(%S+) (%S+) (%S+) (%d+) (%d+) (%a+)$')
    return math.ceil(unfinished * 1000), math.ceil(ended * 1000), math.ceil(fence * 1000),
        tonumber(max_bytes), tonumber(max_chunks), overflow
end

-- Say what a stream is now: open, ended, deleted or expired; nil once its fence too is over.
local function state_at(now, state, deadline, fence)
    deadline = tonumber(deadline)
    if state == 'deleted' then
        return now < deadline and state or nil
    elseif now < deadline then
        return state
    end
    return now < deadline + fence and 'expired' or nil
end

-- Say when to have an open stream's log removed: a little late, so that not every append has to put it off.
local function armed_for(deadline, life)
    return deadline + math.min(math.floor(life / 16), 60000)
end

-- Have a stream's keys removed: the log then, what describes it when its fence is over.
local function arm(meta, log, armed, fence)
    redis.call('PEXPIREAT', log, armed)
    redis.call('PEXPIREAT', meta, armed + fence)
end
