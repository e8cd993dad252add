--[[
Take a gateway out at once, with its tickets and seats. One atomic step; a second call does nothing.

KEYS[1]  replicas      hash: replica -> how to reach it
KEYS[2]  capacity      hash: replica -> seats it offers
KEYS[3]  room          zset: replica -> seats free
KEYS[4]  beats         zset: r:replica and g:channel -> last sign of life, ms
KEYS[5]  line          zset: waiting ticket -> arrival, us
KEYS[6]  seats         hash: seated ticket -> replica
KEYS[7]  drain         hash: rate (1/s), at_ms
ARGV[1]  channel       the gateway's wake channel

Returns  1
Clock    the store's TIME
Twin     serve_app/queueing/order.py
]]
--@include line
--@include seats
--@include reap
local k = named({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]})
forget_gateway(k, ARGV[1])
reap(k, select(2, now_us_ms()))
seat_next(k)
return 1
