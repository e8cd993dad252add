-- Twin: serve_app/queueing/order/moves.py. Needs flows.lua. What a ticket is made of:
local TICKET = {"class", "tenant", "caller", "cost", "bytes", "arrived_us", "due_us",
                "deadline_us", "weight", "caller_weight", "replica", "rank", "seated_us", "charged",
                "caller_charged", "avoid", "prefer"}

local function ticket_of(k, name)
  local text = redis.call("HGET", k.tickets, name)
  if not text then
    return nil
  end
  local ticket = {name = name, prefer = ""} -- which tickets of older gateways lack
  for at, value in ipairs(cmsgpack.unpack(text)) do
    ticket[TICKET[at]] = value
  end
  return ticket
end

local function keep(k, ticket)
  local values = {}
  for at, name in ipairs(TICKET) do
    values[at] = ticket[name]
  end
  redis.call("HSET", k.tickets, ticket.name, cmsgpack.pack(values))
end

local function names_of(ticket)
  if not ticket.flow then
    ticket.flow = flow_name(ticket.class, ticket.tenant)
    ticket.caller_flow = ticket.flow .. "|" .. ticket.caller
  end
  return ticket.flow, ticket.caller_flow
end

local function channel_of(ticket)
  return string.match(ticket, "^(.*)/")
end

-- Where a ticket stands among what its gateway holds: w it waits, s it sits, x it was sent away.
local function held_by(ticket, kind)
  return table.concat({"g:" .. channel_of(ticket.name), kind, ticket.name}, "|")
end

local function place_in_line(ticket, name)
  return table.concat({name, wide(ticket.due_us), wide(ticket.arrived_us), ticket.name}, "|")
end
