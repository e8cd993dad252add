-- Twin: serve_app/queueing/moves.py. Needs line.lua and flows.lua. What a ticket is made of:
local TICKET = {"class", "tenant", "caller", "cost", "bytes", "arrived_us", "due_us",
                "deadline_us", "weight", "caller_weight", "replica", "rank", "seated_us", "charged",
                "caller_charged"}

local function ticket_of(k, name)
  local text = redis.call("HGET", k.tickets_key, name)
  if not text then
    return nil
  end
  local ticket = {name = name}
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
  redis.call("HSET", k.tickets_key, ticket.name, cmsgpack.pack(values))
end

local function names_of(ticket)
  local name = flow_name(ticket.class, ticket.tenant)
  return name, name .. "|" .. ticket.caller
end

local function channel_of(ticket)
  return string.match(ticket, "^(.*)/")
end

-- Where a ticket stands among what its gateway holds; its kind is w if it waits, s if it sits.
local function held_by(ticket, kind)
  return table.concat({"g:" .. channel_of(ticket.name), kind, ticket.name}, "|")
end

local function place_in_line(ticket, name)
  return table.concat({name, wide(ticket.due_us), wide(ticket.arrived_us), ticket.name}, "|")
end

-- The flows of a ticket that comes, lifted to the virtual time if they do not wait.
local function flows_of(k, ticket)
  local name, caller_name = names_of(ticket)
  local flow, caller = flow_made(k, name), flow_made(k, caller_name)
  if flow[WAITING] == 0 then
    flow[COUNTER] = math.max(flow[COUNTER], k.tally.each[ticket.class + 1].virtual)
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
  local flow, caller = flow_of(k, name), flow_of(k, caller_name)
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
