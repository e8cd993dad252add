--[[
Write an entry at the end of the audit, once, and let go of what is too old. One atomic step.

KEYS[1]  audit         stream of entries: at (ms since epoch), mark, entry
ARGV[1]  entry         JSON, opaque here
ARGV[2]  mark          of this entry alone; sent twice, it is written once
ARGV[3]  late_ms       how long ago it happened (>= 0)
ARGV[4]  keep_ms       how long an entry is kept
ARGV[5]  max_entries   how many are kept; as with the age, up to a hundred more may be

Returns  1 if written now, 0 if it was written before
Clock    the store's TIME
Twin     none: whether it is there, the stream alone knows
]]
local LOOK = 32 -- entries looked at for the mark
local GRACE_MS = 1000
local time = redis.call("TIME")
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local late_ms = tonumber(ARGV[3])
local at_ms = math.max(now_ms - late_ms, 0)

local function marked(entries)
  for _, entry in ipairs(entries) do
    if entry[2][4] == ARGV[2] then
      return true
    end
  end
  return false
end

if marked(redis.call("XREVRANGE", KEYS[1], "+", "-", "COUNT", LOOK)) then
  return 0
end
if late_ms > GRACE_MS then -- the first try may have written it, long ago
  local from = string.format("%.0f", math.max(at_ms - GRACE_MS, 0))
  if marked(redis.call("XRANGE", KEYS[1], from, "+", "COUNT", LOOK)) then
    return 0
  end
end
local oldest = string.format("%.0f", math.max(now_ms - tonumber(ARGV[4]), 0))
redis.call("XADD", KEYS[1], "MINID", "~", oldest, "*",
           "at", string.format("%.0f", at_ms), "mark", ARGV[2], "entry", ARGV[1])
redis.call("XTRIM", KEYS[1], "MAXLEN", "~", ARGV[5])
return 1
