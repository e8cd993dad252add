-- Twin: serve_app/queueing/order/steps.py. Needs next.lua and refusal.lua. What a newcomer is told.
local function told(k, ticket)
  closed(k)
  local arrived_us = string.format("%.0f", ticket.arrived_us)
  local replicas = redis.call("HLEN", k.replicas)
  if ticket.replica == "" then
    return {"waiting", k.tally[of(ticket.class) + TICKETS], replicas, arrived_us}
  end
  local info = redis.call("HGET", k.replicas, ticket.replica)
  return {"seated", ticket.rank, ticket.replica, info, arrived_us}
end

-- Seats a newcomer at once if nobody is before it; whether it did.
local function seated_at_once(k, ticket)
  local replica, rank = seat_for(k, ticket.class, ticket), first_turn(k)
  if not replica or (rank and rank <= ticket.class) then
    return false
  end
  local _, caller = flows_of(k, ticket)
  fulfil(k, ticket, caller)
  sit(k, ticket, replica, ticket.class)
  return true
end

local function entered(k, ticket, first_time)
  local channel = channel_of(ticket.name)
  if not redis.call("ZSCORE", k.beats, "g:" .. channel) then
    redis.call("ZADD", k.beats, k.now_ms, "e:" .. channel) -- until it tends, which tells it
  end
  local known = ticket_of(k, ticket.name)
  if known then
    return told(k, known)
  elseif k.tally[MODE] == "draining" and first_time then
    closed(k)
    return {"draining"}
  elseif seated_at_once(k, ticket) then
    return told(k, ticket)
  end
  if first_time then
    local said, wait, after = refusal(k, ticket)
    if said then
      closed(k)
      return {said, k.tally[of(ticket.class) + TICKETS], redis.call("HLEN", k.replicas),
              string.format("%.3f", wait), string.format("%.3f", after), k.tally[MODE]}
    end
  end
  push(k, ticket)
  return told(k, ticket)
end
