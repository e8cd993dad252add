-- Twin: serve_app/queueing/order/moves.py. Needs waiting.lua. Onto a seat, and up from it.
-- Seats that a replica offers, and those it lends; what changes is written when the step ends.
local function seats_of(k, replica)
  if not k.seats[replica] then
    k.seats[replica] = {tonumber(redis.call("HGET", k.capacity, replica) or 0),
                        tonumber(redis.call("HGET", k.lent, replica) or 0)}
  end
  return k.seats[replica]
end

local function lend(k, replica, more)
  local one = seats_of(k, replica)
  one[2] = one[2] + more
  if one[1] > 0 then
    redis.call("ZADD", k.room, math.floor(one[2] * MILLION / one[1]), replica)
  else
    redis.call("ZREM", k.room, replica)
  end
end

local function sit(k, ticket, replica, rank)
  local name, caller_name = names_of(ticket)
  local flow, caller, at = k.used[name], k.used[caller_name], of(ticket.class)
  if flow[LIFTED] == 0 then
    k.tally[at + TIME_OF] = math.max(k.tally[at + TIME_OF], flow[COUNTER])
  end
  flow[VIRTUAL] = math.max(flow[VIRTUAL], caller[COUNTER])
  ticket.replica, ticket.rank, ticket.seated_us = replica, rank, k.now_us
  ticket.weight, ticket.caller_weight = flow[WEIGHT], caller[WEIGHT]
  ticket.charged = units(ticket.cost, flow[WEIGHT])
  ticket.caller_charged = units(ticket.cost, caller[WEIGHT])
  flow[SINCE], flow[LIFTED] = k.now_us, 0
  charge(k, ticket, ticket.charged, ticket.caller_charged)
  keep(k, ticket)
  redis.call("ZADD", k.held, 0, held_by(ticket, "s"), 0, "r:" .. replica .. "|" .. ticket.name)
  k.tally[at + RUNNING], k.tally[LENT] = k.tally[at + RUNNING] + 1, k.tally[LENT] + 1
  k.tally[at + TAKEN] = k.tally[at + TAKEN] + 1
  lend(k, replica, 1)
end

-- Takes a ticket away, wherever it is; of a seat, corrects what was charged to `cost` >= 0.
local function forget(k, ticket, cost)
  local at, more, caller_more = of(ticket.class), 0, 0
  if ticket.replica == "" then
    pull(k, ticket)
  else
    k.tally[at + RUNNING], k.tally[LENT] = k.tally[at + RUNNING] - 1, k.tally[LENT] - 1
    k.tally[ENDED] = k.tally[ENDED] + (cost == 0 and 0 or 1) -- of no use, it tells nothing
    redis.call("ZREM", k.held, held_by(ticket, "s"), "r:" .. ticket.replica .. "|" .. ticket.name)
    lend(k, ticket.replica, -1)
    read(k, names_of(ticket))
    if cost >= 0 then
      more = units(cost, ticket.weight) - ticket.charged
      caller_more = units(cost, ticket.caller_weight) - ticket.caller_charged
    end
  end
  charge(k, ticket, more, caller_more)
  redis.call("HDEL", k.tickets, ticket.name)
end
