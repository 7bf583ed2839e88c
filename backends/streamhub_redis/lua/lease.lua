-- Part of scripts: say until when a lease's generation stays known, in milliseconds: the clock has passed it then, and
-- gives greater ones by itself. For a day at most.
local function known_until(generation, now)
    return math.min(tonumber(generation) + 1, now + 86400000)
end
