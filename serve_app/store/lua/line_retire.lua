--[[
Take a gateway out at once, with its tickets and seats. One atomic step; a second call does nothing.

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
ARGV[1]  channel       the gateway's wake channel

Returns  1
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
tidy(k)
emptied(k, "g:" .. ARGV[1], -1)
seat_next(k)
closed(k)
return 1
