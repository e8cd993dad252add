--[[
Replace a user's password hash by another one of the same password. One atomic step.

KEYS[1]  record        hash of the user
ARGV[1]  seen          the hash that was verified
ARGV[2]  password      the new hash

Returns  1 if replaced, 0 if it has changed meanwhile
Clock    none
Twin     none: nothing is decided here
]]
if redis.call("HGET", KEYS[1], "password") ~= ARGV[1] then
  return 0
end
redis.call("HSET", KEYS[1], "password", ARGV[2])
return 1
