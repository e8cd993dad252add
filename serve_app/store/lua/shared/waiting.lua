-- Twin: serve_app/queueing/order/moves.py. Needs charge.lua. Into the line, and out of it.
local function counted(k, ticket, flow, caller, by)
  local at = of(ticket.class)
  caller[WAITING], flow[WAITING] = caller[WAITING] + by, flow[WAITING] + by
  k.tally[at + TICKETS] = k.tally[at + TICKETS] + by
  k.tally[at + BYTES] = k.tally[at + BYTES] + by * ticket.bytes
  if flow[WAITING] == 0 or (by > 0 and flow[WAITING] == 1) then
    k.tally[at + FLOWS] = k.tally[at + FLOWS] + by
  end
end

local function push(k, ticket)
  local flow, caller = flows_of(k, ticket)
  local name, caller_name = names_of(ticket)
  keep(k, ticket)
  redis.call("ZADD", k.held, 0, held_by(ticket, "w"))
  redis.call("ZADD", k.ages, ticket.class * BY_CLASS + math.floor(ticket.arrived_us / 1000),
             ticket.name)
  redis.call("ZADD", k.line, 0, place_in_line(ticket, caller_name))
  counted(k, ticket, flow, caller, 1)
  if flow[WAITING] == 1 then
    flow[SINCE], flow[LIFTED] = k.now_us, 0
  end
  caller_placed(k, ticket, caller)
  turn(k, name, flow)
end

-- Takes a ticket out of the line; its flows, which are in use then, get their places by a charge.
local function pull(k, ticket)
  local name, caller_name = names_of(ticket)
  read(k, name, caller_name)
  redis.call("ZREM", k.held, held_by(ticket, "w"))
  redis.call("ZREM", k.ages, ticket.name)
  redis.call("ZREM", k.line, place_in_line(ticket, caller_name))
  counted(k, ticket, k.used[name], k.used[caller_name], -1)
end
