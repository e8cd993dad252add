--[[
Give a user name back, if it is still claimed as told. One atomic step.

KEYS[1]  usernames     hash of user name -> claim
ARGV[1]  name
ARGV[2]  claim         to the letter

Returns  1 if given back, 0 if it stands for somebody else or is free
Clock    none
Twin     none: nothing is decided here
]]
if redis.call("HGET", KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call("HDEL", KEYS[1], ARGV[1])
end
return 0
