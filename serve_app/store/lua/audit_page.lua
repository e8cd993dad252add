--[[
Return entries of the audit in the order in which they were written. One atomic step.

KEYS[1]  audit     stream of entries: at (ms since epoch), mark, entry
ARGV[1]  from      first id, as XRANGE takes it; "(" before it leaves it out
ARGV[2]  to        last id, "+" for no end
ARGV[3]  size      entries at most (1 to 1001)
ARGV[4]  keep_ms   how long an entry is kept; an older one that still lies there is not shown

Returns  {{id, {"at", at_ms, "mark", mark, "entry", entry}}, ...}
Clock    the store's TIME
Twin     none: nothing is decided here
]]
local time = redis.call("TIME")
local oldest_ms = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[4])
local from = ARGV[1]
if tonumber(string.match(from, "%d+")) < oldest_ms then
  from = string.format("%.0f", oldest_ms)
end
return redis.call("XRANGE", KEYS[1], from, ARGV[2], "COUNT", ARGV[3])
