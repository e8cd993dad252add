--[[
Register a replica or renew it, with the seats it offers now; seat whom they let in. One atomic step.

KEYS[1]  replicas      hash: replica -> how to reach it
KEYS[2]  capacity      hash: replica -> seats it offers
KEYS[3]  room          zset: replica -> seats free
KEYS[4]  beats         zset: r:replica and g:channel -> last sign of life, ms
KEYS[5]  line          zset: waiting ticket -> arrival, us
KEYS[6]  seats         hash: seated ticket -> replica
KEYS[7]  drain         hash: rate (1/s), at_ms
ARGV[1]  replica       its id
ARGV[2]  seats         it offers (>= 0); 0 lends no more and keeps those lent
ARGV[3]  info          how to reach it, opaque here

Returns  {lent, waiting}   seats it lends now, tickets waiting
Clock    the store's TIME
Twin     serve_app/queueing/order.py
]]
--@include line
--@include seats
--@include reap
local k = named({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]})
local replica, seats = ARGV[1], tonumber(ARGV[2])
local _, now_ms = now_us_ms()
redis.call("ZADD", k.beats, now_ms, "r:" .. replica)
reap(k, now_ms)
local offered = tonumber(redis.call("HGET", k.capacity, replica) or 0)
redis.call("HSET", k.replicas, replica, ARGV[3])
redis.call("HSET", k.capacity, replica, seats)
redis.call("ZINCRBY", k.room, seats - offered, replica)
seat_next(k)
return {seats - tonumber(redis.call("ZSCORE", k.room, replica)), redis.call("ZCARD", k.line)}
