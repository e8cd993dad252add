--[[
Take a user name, unique over the whole gate, for a tenant: a free one, or one still claimed as
``instead_of`` says. One atomic step; sent again for the same user, it answers alike.

KEYS[1]  usernames     hash of user name -> claim "<tenant> <claimed us> <user id>"
ARGV[1]  name
ARGV[2]  tenant
ARGV[3]  user_id
ARGV[4]  instead_of    a claim to replace, to the letter; empty: a free name only

Returns  {taken 0|1, claim that stands now, now_us}
Clock    the store's TIME
Twin     none: nothing is decided here
]]
local time = redis.call("TIME")
local now_us = time[1] * 1000000 + time[2]
local standing = redis.call("HGET", KEYS[1], ARGV[1])
if standing and string.sub(standing, -#ARGV[3] - 1) == " " .. ARGV[3] then
  return {1, standing, now_us}
end
if standing and standing ~= ARGV[4] then
  return {0, standing, now_us}
end
local claim = string.format("%s %.0f %s", ARGV[2], now_us, ARGV[3])
redis.call("HSET", KEYS[1], ARGV[1], claim)
return {1, claim, now_us}
