--[[
Register a replica or renew it, with the seats it offers now; seat whom they let in. One atomic step.

KEYS[1]  replicas      hash: replica -> how to reach it
KEYS[2]  capacity      hash: replica -> seats it offers
KEYS[3]  lent          hash: replica -> seats it lends
KEYS[4]  room          zset: replica -> share of its seats that is lent, millionths
KEYS[5]  beats         zset: r:replica and g:channel -> last sign of life, ms
KEYS[6]  tickets       hash: ticket -> what it asks for, and where it sits
KEYS[7]  held          zset: g:channel|ticket and r:replica|ticket
KEYS[8]  ages          zset: waiting ticket -> arrival, ms, apart by class
KEYS[9]  line          zset: flow of a caller|deadline|arrival|waiting ticket
KEYS[10] callers       zset: flow|counter|caller that waits
KEYS[11] turns         zset: rank|not lifted|counter|flow that waits
KEYS[12] lifts         zset: flow -> when it counts one class higher, us
KEYS[13] flows         hash: flow -> what it was served
KEYS[14] seen          zset: flow -> last used, ms
KEYS[15] promised      zset: refused ticket -> when its caller was told to come, ms, apart by class
KEYS[16] tally         string: the rules and what is counted of each class
ARGV[1]  replica       its id
ARGV[2]  seats         it offers (>= 0); 0 lends no more and keeps those lent
ARGV[3]  info          how to reach it, opaque here

Returns  {lent, waiting}   seats it lends now, tickets waiting
Clock    the store's TIME
Twin     serve_app/queueing/order/steps.py
]]
--@include line
--@include close
--@include flows
--@include ticket
--@include charge
--@include waiting
--@include seats
--@include next
--@include reap
local k = opened()
local replica = ARGV[1]
redis.call("ZADD", k.beats, k.now_ms, "r:" .. replica)
tidy(k)
redis.call("HSET", k.replicas, replica, ARGV[3])
redis.call("HSET", k.capacity, replica, ARGV[2])
seats_of(k, replica)[1] = tonumber(ARGV[2])
lend(k, replica, 0)
seat_next(k)
closed(k)
return {seats_of(k, replica)[2], redis.call("ZCARD", k.ages)}
