--[[
Add what a gateway has counted of one caller's refusals in one hour; once, however often it is
sent. One atomic step.

KEYS[1]  usage     hash of one caller and hour: "<model>\t<class>\t<what>" counters
KEYS[2]  used      set: ids of the tenant's callers with use in that hour
ARGV[1]  key_id    the caller's
ARGV[2]  notes     JSON [[model, class, refused, shadow_refused] ...], counts >= 0
ARGV[3]  gateway   that counted; it sends a batch until it is told, and only then the next one
ARGV[4]  number    of the gateway's batch (>= 1), each greater than the one before

Returns  1 if added now, 0 if it was added before
Clock    none
Twin     none: nothing is decided here
]]
--@include ledger
local k = {usage = KEYS[1], used = KEYS[2]}
local mark = "noted\t" .. ARGV[3]
if tonumber(redis.call("HGET", k.usage, mark) or 0) >= tonumber(ARGV[4]) then
  return 0
end
for _, note in ipairs(cjson.decode(ARGV[2])) do
  local counts = {refused = note[3], shadow_refused = note[4]}
  if write_down(k, ARGV[1], note[1], note[2], counts) then
    redis.call("HSET", k.usage, mark, ARGV[4])
  end
end
return 1
