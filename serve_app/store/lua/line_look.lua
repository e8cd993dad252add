--[[
Tell a gateway which of its tickets sit or were sent away, should a message be lost. One atomic step;
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
ARGV[1]  channel       the gateway's wake channel
ARGV[2]  after         the last ticket that was told; empty for the first
ARGV[3]  size          tickets at most

Returns  {ticket, replica, rank, info, ticket, ...}   no replica: it was sent away
Clock    the store's TIME
Twin     none: it changes nothing
]]
--@include line
--@include flows
--@include ticket
local k, told = opened(), {}
local prefix = "g:" .. ARGV[1] .. "|s|"
local held = redis.call("ZRANGE", k.held, "(" .. prefix .. ARGV[2], "(" .. prefix .. "~",
                        "BYLEX", "LIMIT", 0, ARGV[3])
for _, one in ipairs(held) do
  local ticket = ticket_of(k, string.sub(one, #prefix + 1))
  local info = ticket and redis.call("HGET", k.replicas, ticket.replica)
  for _, value in ipairs(info and {ticket.name, ticket.replica, ticket.rank, info} or {}) do
    told[#told + 1] = value
  end
end
for _, one in ipairs(redis.call("ZRANGE", k.held, "[g:" .. ARGV[1] .. "|x|", "(g:" .. ARGV[1] ..
                                "|x|~", "BYLEX", "LIMIT", 0, ARGV[3])) do
  for _, value in ipairs({string.match(one, "|([^|]*)$"), "", 0, ""}) do
    told[#told + 1] = value
  end
end
return told
