--[[
Change a user's record if nobody else has meanwhile. One atomic step; sent again with the same new
revision, it answers alike.

KEYS[1]  record        hash of the user
ARGV[1]  seen          revision that the writer has read
ARGV[2]  revision      the new one, drawn by the writer
ARGV[3]  attributes    JSON, opaque here
ARGV[4]  disabled      0 or 1
ARGV[5]  limits        as the hold reads them; empty for the gate's default
ARGV[6]  password      its Argon2 hash; empty keeps the old one
ARGV[7]  end_sessions  1: tokens issued up to now are refused from now on

Returns  {changed_ms, not_before_ms}; changed_ms is 0 if the revision is another one,
         -1 if there is no such user
Clock    the store's TIME
Twin     none: nothing is decided here
]]
local found = redis.call("HMGET", KEYS[1], "revision", "changed_ms", "not_before_ms")
if not found[1] then
  return {-1, 0}
end
if found[1] == ARGV[2] then
  return {tonumber(found[2]), tonumber(found[3])}
end
if found[1] ~= ARGV[1] then
  return {0, 0}
end
local time = redis.call("TIME")
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local not_before_ms = tonumber(found[3])
redis.call("HSET", KEYS[1], "revision", ARGV[2], "attributes", ARGV[3], "disabled", ARGV[4],
           "changed_ms", string.format("%.0f", now_ms))
if ARGV[5] ~= "" then
  redis.call("HSET", KEYS[1], "limits", ARGV[5])
else
  redis.call("HDEL", KEYS[1], "limits")
end
if ARGV[6] ~= "" then
  redis.call("HSET", KEYS[1], "password", ARGV[6])
end
if ARGV[7] == "1" then
  not_before_ms = now_ms + 1
  redis.call("HSET", KEYS[1], "not_before_ms", string.format("%.0f", not_before_ms))
end
return {now_ms, not_before_ms}
