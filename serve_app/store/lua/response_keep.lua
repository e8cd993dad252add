--[[
Note where a response is kept, and forget the oldest beyond what a tenant may have noted, and those
whose time is over. One atomic step.

KEYS[1]  kept          hash of the tenant: response id -> JSON, opaque here
KEYS[2]  since         zset of the same ids by time noted, ms
ARGV[1]  response_id
ARGV[2]  place         JSON: model, asked, replica, caller
ARGV[3]  ttl_s         seconds it is found at least, unless it is among the oldest (>= 1)
ARGV[4]  most          that a tenant has (>= 1)

Returns  how many the tenant has now
Clock    the store's TIME
Twin     none: nothing is decided here
]]
local time = redis.call("TIME")
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
redis.call("ZADD", KEYS[2], now_ms, ARGV[1])
local over = redis.call("ZCARD", KEYS[2]) - ARGV[4]
local gone = redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now_ms - ARGV[3] * 1000, "LIMIT", 0, 100)
if #gone == 0 and over > 0 then
  gone = redis.call("ZRANGE", KEYS[2], 0, math.min(over, 100) - 1)
end
if #gone > 0 then
  redis.call("HDEL", KEYS[1], unpack(gone))
  redis.call("ZREM", KEYS[2], unpack(gone))
end
redis.call("EXPIRE", KEYS[1], ARGV[3])
redis.call("EXPIRE", KEYS[2], ARGV[3])
return redis.call("ZCARD", KEYS[2])
