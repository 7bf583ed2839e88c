-- Part of scripts: whole numbers as decimal text. Generations have 63 bits, a Lua number holds 53.
local function less(one, other)
    if #one ~= #other then
        return #one < #other
    end
    return one < other
end
