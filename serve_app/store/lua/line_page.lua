--[[
Tell which tickets of a class wait longest. One atomic step;
it changes nothing.

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
ARGV[1]  class         0 for the highest
ARGV[2]  size          tickets at most
ARGV[3]  ticket        only this one; empty for all

Returns  {{ticket, class, tenant, caller, arrived_us, deadline_us, cost, bytes}, ...}   us as text
Clock    the store's TIME
Twin     none: it changes nothing
]]
--@include line
--@include flows
--@include ticket
local k, told = opened(), {}
local low = tonumber(ARGV[1]) * BY_CLASS
local names = {ARGV[3]}
if ARGV[3] == "" then
  names = redis.call("ZRANGE", k.ages, string.format("%.0f", low),
                     string.format("%.0f", low + BY_CLASS - 1), "BYSCORE", "LIMIT", 0, ARGV[2])
end
for _, name in ipairs(names) do
  local ticket = ticket_of(k, name)
  if ticket and ticket.replica == "" then
    told[#told + 1] = {name, ticket.class, ticket.tenant, ticket.caller,
                       string.format("%.0f", ticket.arrived_us),
                       string.format("%.0f", ticket.deadline_us), ticket.cost, ticket.bytes}
  end
end
return told
