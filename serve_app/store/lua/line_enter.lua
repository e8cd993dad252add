--[[
Seat a request, or give it a place in line, or turn it away. One atomic step.

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
ARGV[1]  ticket        <wake channel>/<number>; sent twice, it enters once
ARGV[2]  class         0 for the highest
ARGV[3]  tenant        whose flow
ARGV[4]  caller        whose part of it
ARGV[5]  weight        of the tenant
ARGV[6]  caller_weight of the caller
ARGV[7]  cost          tokens it is expected to cost (>= 0)
ARGV[8]  bytes         of its body
ARGV[9]  arrived_us    when it first came, us; 0 for now, else no bound turns it away
ARGV[10] patience_us   how long it may wait in all, us; the shorter, the earlier its turn
ARGV[11] left_us       of that, how long from now on
ARGV[12] avoid         replica that just failed this request; empty for none
ARGV[13] prefer        replica that may have its prompt's beginning cached; empty for none
ARGV[14] first_try     1 if its client says that it was not told to come again
ARGV[15] rules         as line_tend takes them, for a line that lacks this class

Returns  {"seated", rank, replica, info, arrived_us}
         {"waiting", waiting, replicas, arrived_us}   waiting: of its class
         {"full" | "late", waiting, replicas, wait_ms, after_ms, mode}   the line is as it was; ms
             as text, 0 if nobody can tell
         {"draining"}
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
--@include drain
--@include promises
--@include refusal
--@include entering
local k = opened()
if classes(k) <= tonumber(ARGV[2]) then
  set_rules(k, ARGV[15])
end
local first_time = ARGV[9] == "0"
local ticket = {name = ARGV[1], class = tonumber(ARGV[2]), tenant = ARGV[3], caller = ARGV[4],
                weight = tonumber(ARGV[5]), caller_weight = tonumber(ARGV[6]),
                cost = tonumber(ARGV[7]), bytes = tonumber(ARGV[8]),
                arrived_us = first_time and k.now_us or tonumber(ARGV[9]), replica = "", rank = 0,
                seated_us = 0, charged = 0, caller_charged = 0,
                first_try = ARGV[14] == "1",
                avoid = ARGV[12], prefer = ARGV[13]}
ticket.due_us = ticket.arrived_us + tonumber(ARGV[10])
ticket.deadline_us = k.now_us + tonumber(ARGV[11])
return entered(k, ticket, first_time)
