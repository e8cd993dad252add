--[[
Remove a tenant that owns nothing. One atomic step.

KEYS[1]  record        hash of the tenant
KEYS[2]  keys          zset of its key ids
KEYS[3]  users         zset of its user names

Returns  1 if removed, 0 if it was not there, -1 if it owns keys or users
Clock    none
Twin     none: nothing is decided here
]]
if redis.call("EXISTS", KEYS[2], KEYS[3]) > 0 then
  return -1
end
return redis.call("DEL", KEYS[1])
