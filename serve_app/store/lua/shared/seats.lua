-- Twin: serve_app/queueing/moves.py. Needs waiting.lua. Onto a seat, and up from it.
local function placed(k, replica, lent)
  local seats = tonumber(redis.call("HGET", k.capacity, replica) or 0)
  if seats > 0 then
    redis.call("ZADD", k.room, math.floor(lent * MILLION / seats), replica)
  else
    redis.call("ZREM", k.room, replica)
  end
end

local function sit(k, ticket, replica, rank)
  local name, caller_name = names_of(ticket)
  local flow, caller = flow_of(k, name), flow_of(k, caller_name)
  local tally = k.tally.each[ticket.class + 1]
  if flow[LIFTED] == 0 then
    tally.virtual = math.max(tally.virtual, flow[COUNTER])
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
  tally.running, k.tally.lent = tally.running + 1, k.tally.lent + 1
  tally.taken[1] = tally.taken[1] + 1
  placed(k, replica, redis.call("HINCRBY", k.lent, replica, 1))
end

local function stand_up(k, ticket)
  local tally, now = k.tally.each[ticket.class + 1], k.tally
  tally.running, now.lent = tally.running - 1, now.lent - 1
  now.ended[1] = now.ended[1] + 1
  now.lent_ms[1] = now.lent_ms[1] + math.floor((k.now_us - ticket.seated_us) / 1000)
  redis.call("ZREM", k.held, held_by(ticket, "s"), "r:" .. ticket.replica .. "|" .. ticket.name)
  placed(k, ticket.replica, redis.call("HINCRBY", k.lent, ticket.replica, -1))
end

-- Takes a ticket away, wherever it is; of a seat, corrects what was charged to `cost` >= 0.
local function forget(k, ticket, cost)
  if ticket.replica == "" then
    pull(k, ticket)
  else
    stand_up(k, ticket)
    if cost >= 0 then
      charge(k, ticket, units(cost, ticket.weight) - ticket.charged,
             units(cost, ticket.caller_weight) - ticket.caller_charged)
    end
  end
  redis.call("HDEL", k.tickets, ticket.name)
end
