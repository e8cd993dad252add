--[[
Give a seat back and seat the next, or leave the line. One atomic step; a second call does nothing.

KEYS[1]  replicas      hash: replica -> how to reach it
KEYS[2]  capacity      hash: replica -> seats it offers
KEYS[3]  room          zset: replica -> seats free
KEYS[4]  beats         zset: r:replica and g:channel -> last sign of life, ms
KEYS[5]  line          zset: waiting ticket -> arrival, us
KEYS[6]  seats         hash: seated ticket -> replica
KEYS[7]  drain         hash: rate (1/s), at_ms
ARGV[1]  ticket        that leaves

Returns  "seat" if it had one, "line" if it waited, "gone" if it had left before
Clock    the store's TIME
Twin     serve_app/queueing/order.py
]]
--@include line
--@include seats
--@include reap
local k = named({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]})
local ticket = ARGV[1]
local _, now_ms = now_us_ms()
local said = "gone"
local replica = redis.call("HGET", k.seats, ticket)
if replica then
  stand_up(k, ticket, replica)
  drain_rate(k, now_ms, 1)
  said = "seat"
elseif redis.call("ZREM", k.line, ticket) == 1 then
  said = "line"
end
reap(k, now_ms)
seat_next(k)
return said
