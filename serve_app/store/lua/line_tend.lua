--[[
Renew a gateway, forget the silent, seat whom there is room for, and count. One atomic step.

KEYS[1]  replicas      hash: replica -> how to reach it
KEYS[2]  capacity      hash: replica -> seats it offers
KEYS[3]  room          zset: replica -> seats free
KEYS[4]  beats         zset: r:replica and g:channel -> last sign of life, ms
KEYS[5]  line          zset: waiting ticket -> arrival, us
KEYS[6]  seats         hash: seated ticket -> replica
KEYS[7]  drain         hash: rate (1/s), at_ms
ARGV[1]  channel       the gateway's wake channel

Returns  {running, waiting, replicas, seats, oldest_ms, rate, gateways}
         oldest_ms: how long the first in line has waited; rate: seats freed a second, as text
Clock    the store's TIME
Twin     serve_app/queueing/order.py
]]
--@include line
--@include seats
--@include reap
local k = named({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]})
local now_us, now_ms = now_us_ms()
redis.call("ZADD", k.beats, now_ms, "g:" .. ARGV[1])
reap(k, now_ms)
seat_next(k)
local seats = 0
for _, offered in ipairs(redis.call("HVALS", k.capacity)) do
  seats = seats + tonumber(offered)
end
local head = redis.call("ZRANGE", k.line, 0, 0, "WITHSCORES")
local oldest_ms = head[2] and math.floor((now_us - tonumber(head[2])) / 1000) or 0
local replicas = redis.call("HLEN", k.replicas)
return {redis.call("HLEN", k.seats), redis.call("ZCARD", k.line), replicas, seats, oldest_ms,
        string.format("%.6f", drain_rate(k, now_ms, 0)), redis.call("ZCARD", k.beats) - replicas}
