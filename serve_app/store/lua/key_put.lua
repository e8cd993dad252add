--[[
Write a new key's record and list it; a taken id is left alone. One atomic step.

KEYS[1]  record        hash of the key: sha256, attributes, expires_ms, limits, used_ms
KEYS[2]  index         zset of the tenant's key ids by time made, us
KEYS[3]  tenant        hash of the tenant
ARGV[1]  key_id
ARGV[2]  sha256        of the secret, hex
ARGV[3]  attributes    JSON, opaque here
ARGV[4]  expires_ms    ms since epoch; 0 never
ARGV[5]  limits        as the hold reads them; empty for the gate's default
ARGV[6]  must_exist    1 if the tenant's record must be there
ARGV[7]  made_us       when it was made, us since epoch; 0 for now

Returns  1 if written, 0 if the id is taken, -1 if there is no such tenant
Clock    the store's TIME
Twin     none: nothing is decided here
]]
if ARGV[6] == "1" and redis.call("EXISTS", KEYS[3]) == 0 then
  return -1
elseif redis.call("EXISTS", KEYS[1]) == 1 then
  return 0
end
redis.call("HSET", KEYS[1], "sha256", ARGV[2], "attributes", ARGV[3], "expires_ms", ARGV[4])
if ARGV[5] ~= "" then
  redis.call("HSET", KEYS[1], "limits", ARGV[5])
end
local time = redis.call("TIME")
local made_us = tonumber(ARGV[7]) > 0 and ARGV[7] or time[1] * 1000000 + time[2]
redis.call("ZADD", KEYS[2], made_us, ARGV[1])
return 1
