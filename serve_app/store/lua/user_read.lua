--[[
Return a user's record and the time at which it stood like that. One atomic step.

KEYS[1]  record        hash of the user

Returns  {now_ms, id, attributes, password, disabled, not_before_ms, changed_ms, revision};
         id is empty if there is no such user
Clock    the store's TIME
Twin     none: nothing is decided here
]]
local time = redis.call("TIME")
local found = redis.call("HMGET", KEYS[1], "id", "attributes", "password", "disabled",
                         "not_before_ms", "changed_ms", "revision")
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
return {now_ms, found[1] or "", found[2] or "", found[3] or "", found[4] or "0",
        found[5] or "0", found[6] or "0", found[7] or ""}
