--[[
Change a key's attributes, limits and expiry, if nobody else has meanwhile. One atomic step.

KEYS[1]  record        hash of the key: sha256, attributes, expires_ms, limits, used_ms
ARGV[1]  was           the attributes that the change was made from
ARGV[2]  attributes    JSON, opaque here
ARGV[3]  expires_ms    ms since epoch; 0 never
ARGV[4]  limits        as the hold reads them; empty for the gate's default

Returns  1 if changed, 0 if the attributes are others by now, -1 if the key is gone
Clock    none
Twin     none: nothing is decided here
]]
local is = redis.call("HGET", KEYS[1], "attributes")
if not is then
  return -1
elseif is ~= ARGV[1] then
  return 0
end
redis.call("HSET", KEYS[1], "attributes", ARGV[2], "expires_ms", ARGV[3])
if ARGV[4] ~= "" then
  redis.call("HSET", KEYS[1], "limits", ARGV[4])
else
  redis.call("HDEL", KEYS[1], "limits")
end
return 1
