-- Part of scripts: answer that nothing was written, as only a master may. A replica that lags behind knows less than its
-- master; this write, which changes nothing, makes it refuse (READONLY) instead.
local function unwritten(answer)
    redis.call('HDEL', KEYS[1], '')
    return answer
end

-- Let what follows be written though the server has reached maxmemory: it checks that at a script's first write only,
-- and at one that can only free memory not at all. For what is small, and helps to make room.
local function write_anyway()
    redis.call('HDEL', KEYS[1], '')
end
