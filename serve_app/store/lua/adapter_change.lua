--[[
Put an adapter of a model, change it or take it out, if it is still what its reader saw. One atomic
step.

KEYS[1]  adapters      hash: name -> what every replica is to load, opaque here
ARGV[1]  name
ARGV[2]  before        what the reader saw; empty: there was none of that name
ARGV[3]  after         what it is to be; empty: none
ARGV[4]  most          adapters that a model may have (>= 1)

Returns  1 if done, 0 if it is another one by now, -1 if there are as many as may be
Clock    none
Twin     none: nothing is decided here
]]
local standing = redis.call("HGET", KEYS[1], ARGV[1]) or ""
if standing == ARGV[3] then
  return 1
end
if standing ~= ARGV[2] then
  return 0
end
if ARGV[3] == "" then
  redis.call("HDEL", KEYS[1], ARGV[1])
  return 1
end
if standing == "" and redis.call("HLEN", KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[3])
return 1
