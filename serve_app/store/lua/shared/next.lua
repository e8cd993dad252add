-- Twin: serve_app/queueing/order.py. Needs seats.lua. Who goes next, and where.
local SEATED_AT_ONCE = 64 -- seats handed out by one step at most; the next one goes on

-- The emptiest replica and how full it is, another than `avoid` if there is one; nil if none.
local function roomiest(k, avoid)
  local found = redis.call("ZRANGE", k.room_key, 0, 1, "WITHSCORES")
  local at = (found[1] == avoid and found[3]) and 3 or 1
  return found[at], tonumber(found[at + 1] or 0)
end

local function may_sit(k, share, rank)
  return k.tally.mode ~= "paused" and share < k.tally.rules[rank + 1][1]
end

-- The rank and the name of the flow whose turn it is; nil if none waits.
local function first_turn(k)
  local first = redis.call("ZRANGE", k.turns_key, 0, 0)[1]
  if first then
    return tonumber(string.sub(first, 1, 2)), string.sub(first, 23)
  end
end

local function first_under(key, prefix)
  return redis.call("ZRANGE", key, "[" .. prefix, "(" .. prefix .. "~", "BYLEX", "LIMIT", 0, 1)[1]
end

-- The ticket that goes next of a flow that waits.
local function next_of(k, name)
  local caller = string.sub(first_under(k.callers_key, name .. "|"), #name + 19)
  local prefix = name .. "|" .. caller .. "|"
  return ticket_of(k, string.sub(first_under(k.line_key, prefix), #prefix + 35))
end

-- Seats those whose turn it is while there is room, and tells their gateways.
local function seat_next(k)
  for _ = 1, SEATED_AT_ONCE do
    local rank, name = first_turn(k)
    local replica, share = roomiest(k, "")
    if not rank or not replica or not may_sit(k, share, rank) then
      return
    end
    local ticket = next_of(k, name)
    if ticket.deadline_us <= k.now_us then
      forget(k, ticket, -1)
    else
      pull(k, ticket)
      sit(k, ticket, replica, rank)
      local info = redis.call("HGET", k.replicas_key, replica)
      redis.call("PUBLISH", channel_of(ticket.name),
                 table.concat({ticket.name, replica, rank, info}, "\n"))
    end
  end
end
