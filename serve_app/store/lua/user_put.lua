--[[
Write a new user's record and list it, soon after its name was claimed; no token of an earlier user
of that name is good any more. One atomic step; sent again for the same user, it answers alike.

KEYS[1]  record        hash of the user
KEYS[2]  index         zset of the tenant's user names by time made, us
KEYS[3]  tenant        hash of the tenant
ARGV[1]  name
ARGV[2]  user_id
ARGV[3]  password      its Argon2 hash
ARGV[4]  attributes    JSON, opaque here
ARGV[5]  disabled      0 or 1
ARGV[6]  limits        as the hold reads them; empty for the gate's default
ARGV[7]  revision      of the record, drawn by the writer
ARGV[8]  claimed_us    when the name was claimed, which is when the user was made
ARGV[9]  lease_us      how long after that a record may be written
ARGV[10] must_exist    1 if the tenant's record must be there

Returns  1 if written, 0 if there is such a user, -1 if the claim is too old, -2 if there is no such
         tenant
Clock    the store's TIME
Twin     none: nothing is decided here
]]
local standing = redis.call("HGET", KEYS[1], "id")
if standing then
  return standing == ARGV[2] and 1 or 0
end
if ARGV[10] == "1" and redis.call("EXISTS", KEYS[3]) == 0 then
  return -2
end
local time = redis.call("TIME")
local now_us = time[1] * 1000000 + time[2]
if now_us - tonumber(ARGV[8]) > tonumber(ARGV[9]) then
  return -1
end
local made_ms = string.format("%.0f", math.floor(tonumber(ARGV[8]) / 1000))
local now_ms = string.format("%.0f", math.floor(now_us / 1000))
redis.call("HSET", KEYS[1], "id", ARGV[2], "password", ARGV[3], "attributes", ARGV[4],
           "disabled", ARGV[5], "not_before_ms", now_ms, "changed_ms", made_ms,
           "revision", ARGV[7])
if ARGV[6] ~= "" then
  redis.call("HSET", KEYS[1], "limits", ARGV[6])
end
redis.call("ZADD", KEYS[2], now_us, ARGV[1])
return 1
