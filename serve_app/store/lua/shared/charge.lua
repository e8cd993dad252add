-- Twin: serve_app/queueing/order/moves.py. Needs ticket.lua. What a ticket's flows are charged.
-- The flows of a ticket that comes, lifted to the virtual time if they do not wait.
local function flows_of(k, ticket)
  read(k, names_of(ticket))
  local flow, caller = made(k, names_of(ticket))
  if flow[WAITING] == 0 then
    flow[COUNTER] = math.max(flow[COUNTER], k.tally[of(ticket.class) + TIME_OF])
  end
  if caller[WAITING] == 0 then
    caller[COUNTER] = math.max(caller[COUNTER], flow[VIRTUAL])
  end
  flow[WEIGHT], caller[WEIGHT] = ticket.weight, ticket.caller_weight
  return flow, caller
end

-- Adds to the counters of a ticket's flows, if they are still known; each gets its new place.
local function charge(k, ticket, more, caller_more)
  local name, caller_name = names_of(ticket)
  local flow, caller = k.used[name], k.used[caller_name]
  if caller then
    caller[COUNTER] = math.min(math.max(caller[COUNTER] + caller_more, 0), TOP_COUNTER)
  end
  if flow then
    flow[COUNTER] = math.min(math.max(flow[COUNTER] + more, 0), TOP_COUNTER)
    turn(k, name, flow)
  end
  if flow and caller then
    caller_placed(k, ticket, caller)
  end
end
