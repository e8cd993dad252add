--[[
Return a page of an index, oldest first; names made in the same instant are not lost. One atomic
step.

KEYS[1]  index         zset: name -> when it was made, us
ARGV[1]  after_us      time made of the last one seen; -1 for the first page
ARGV[2]  after         its name; if it is gone by now, its place is found all the same
ARGV[3]  size          names at most (1 to 1000)

Returns  {name, made_us, name, made_us, ...}
Clock    none
Twin     none: nothing is decided here
]]
local gone = redis.call("ZADD", KEYS[1], "NX", ARGV[1], ARGV[2]) == 1
local from = redis.call("ZRANK", KEYS[1], ARGV[2]) + 1
if gone then
  redis.call("ZREM", KEYS[1], ARGV[2])
  from = from - 1
end
return redis.call("ZRANGE", KEYS[1], from, from + tonumber(ARGV[3]) - 1, "WITHSCORES")
