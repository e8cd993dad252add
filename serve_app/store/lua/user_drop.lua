--[[
Remove a user if nobody has changed it meanwhile; its next request is refused. One atomic step.

KEYS[1]  record        hash of the user
KEYS[2]  index         zset of the tenant's user names
ARGV[1]  name
ARGV[2]  seen          revision that the caller has read

Returns  1 if removed or not there, 0 if the revision is another one
Clock    none
Twin     none: nothing is decided here
]]
local revision = redis.call("HGET", KEYS[1], "revision")
if revision and revision ~= ARGV[2] then
  return 0
end
redis.call("DEL", KEYS[1])
redis.call("ZREM", KEYS[2], ARGV[1])
return 1
