-- Twin: serve_app/queueing/order/steps.py. Needs seats.lua. Who goes next, and where.
local SEATED_AT_ONCE = 64 -- seats handed out by one step at most; the next one goes on

local function may_sit(k, share, rank)
  return k.tally[MODE] ~= "paused" and tonumber(share) < k.tally[of(rank) + CEILING]
end

-- The emptiest replica that seats a rank now, another than `avoid` if there is one; nil if none.
local function roomiest(k, rank, avoid)
  local found = redis.call("ZRANGE", k.room, 0, 1, "WITHSCORES")
  local at = (found[1] == avoid and found[3] and may_sit(k, found[4], rank)) and 3 or 1
  return found[at] and may_sit(k, found[at + 1], rank) and found[at] or nil
end

-- Where a ticket may sit now: where it prefers to if that lends at most a quarter more seats than
-- the mean of all, with this one; else where there is most room.
local function seat_for(k, rank, ticket)
  local prefer = ticket.prefer
  local share = prefer ~= "" and prefer ~= ticket.avoid and redis.call("ZSCORE", k.room, prefer)
  if share and may_sit(k, share, rank) and
     4 * seats_of(k, prefer)[2] * redis.call("ZCARD", k.room) < 5 * (k.tally[LENT] + 1) then
    return prefer
  end
  return roomiest(k, rank, ticket.avoid)
end

-- The rank and the name of the flow whose turn it is; nil if none waits.
local function first_turn(k)
  local first = redis.call("ZRANGE", k.turns, 0, 0)[1]
  if first then
    return tonumber(string.sub(first, 1, 2)), string.sub(first, 23)
  end
end

-- The ticket that goes next of a flow that waits.
local function next_of(k, name)
  local at = name .. "|"
  local caller = redis.call("ZRANGE", k.callers, "[" .. at, "(" .. at .. "~", "BYLEX",
                            "LIMIT", 0, 1)[1]
  at = at .. string.sub(caller, #name + 19) .. "|"
  local ticket = redis.call("ZRANGE", k.line, "[" .. at, "(" .. at .. "~", "BYLEX", "LIMIT", 0, 1)[1]
  return ticket_of(k, string.sub(ticket, #at + 35))
end

-- Seats those whose turn it is while there is room, and tells their gateways.
local function seat_next(k)
  for _ = 1, SEATED_AT_ONCE do
    local rank, name = first_turn(k)
    local replica = rank and roomiest(k, rank, "")
    if not replica then
      return
    end
    local ticket = next_of(k, name)
    replica = seat_for(k, rank, ticket) or replica
    if ticket.deadline_us < k.now_us then
      forget(k, ticket, -1)
    else
      pull(k, ticket)
      sit(k, ticket, replica, rank)
      local info = redis.call("HGET", k.replicas, replica)
      redis.call("PUBLISH", channel_of(ticket.name),
                 table.concat({ticket.name, replica, rank, info}, "\n"))
    end
  end
end
