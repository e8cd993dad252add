-- Twin: serve_app/queueing/moves.py. Needs charge.lua. Into the line, and out of it.
local function counted(k, ticket, flow, caller, by)
  local tally = k.tally.each[ticket.class + 1]
  caller[WAITING], flow[WAITING] = caller[WAITING] + by, flow[WAITING] + by
  tally.waiting, tally.bytes = tally.waiting + by, tally.bytes + by * ticket.bytes
  if flow[WAITING] == 0 or (by > 0 and flow[WAITING] == 1) then
    tally.flows = tally.flows + by
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

local function pull(k, ticket)
  local name, caller_name = names_of(ticket)
  local flow, caller = flow_of(k, name), flow_of(k, caller_name)
  redis.call("ZREM", k.held, held_by(ticket, "w"))
  redis.call("ZREM", k.ages, ticket.name)
  redis.call("ZREM", k.line, place_in_line(ticket, caller_name))
  counted(k, ticket, flow, caller, -1)
  caller_placed(k, ticket, caller)
  turn(k, name, flow)
end
