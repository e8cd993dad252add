--[[
Renew a gateway, forget the silent, seat whom there is room for, and count. One atomic step.

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
ARGV[1]  channel       the gateway's wake channel; empty to look only
ARGV[2]  rules         of the classes: JSON, [ceiling, promote_us, max_tickets, max_bytes] of each

Returns  {mode, lent, replicas, seats, gateways, new, freed, class, class, ...}
         new: 1 if the gateway was not known, with all that it held; freed: seats a second, as text
         class: {waiting, bytes, running, oldest_ms, wait_ms}   wait_ms: of one more, as text
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
--@include drain
--@include promises
local k = opened()
set_rules(k, ARGV[2])
local new = ARGV[1] ~= "" and redis.call("ZADD", k.beats, k.now_ms, "g:" .. ARGV[1]) or 0
redis.call("ZREM", k.beats, "e:" .. ARGV[1])
tidy(k)
forget_idle(k)
seat_next(k)

local function oldest_ms(class)
  local low, high = class * BY_CLASS, (class + 1) * BY_CLASS - 1
  local found = redis.call("ZRANGE", k.ages, string.format("%.0f", low),
                           string.format("%.0f", high), "BYSCORE", "LIMIT", 0, 1, "WITHSCORES")
  return found[2] and k.now_ms - (tonumber(found[2]) - low) or 0
end

local seats, replicas = 0, redis.call("HLEN", k.replicas)
for _, offered in ipairs(redis.call("HVALS", k.capacity)) do
  seats = seats + tonumber(offered)
end
local gateways = math.max(redis.call("ZCARD", k.beats) - replicas, 0)
local told = {k.tally[MODE], k.tally[LENT], replicas, seats, gateways, new,
              string.format("%.6f", freed_per_ms(k) * 1000)}
for class = 0, classes(k) - 1 do
  local at = of(class)
  forget_stale(k, class)
  local wait = string.format("%.3f", wait_ms(k, class, nil, 0))
  told[#told + 1] = {k.tally[at + TICKETS], k.tally[at + BYTES], k.tally[at + RUNNING],
                     oldest_ms(class), wait}
end
closed(k)
return told
