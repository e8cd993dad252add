-- Twin: serve_app/queueing/order.py. Needs line.lua.
local SEATED_AT_ONCE = 512 -- seats handed out by one step at most; the next step goes on

-- The replica with the most room, another than `avoid` if there is one; nil if none has any.
local function roomiest(k, avoid)
  local found = redis.call("ZREVRANGE", k.room, 0, 1, "WITHSCORES")
  local at = (found[1] == avoid and found[3] and tonumber(found[4]) > 0) and 3 or 1
  if found[at] and tonumber(found[at + 1]) > 0 then
    return found[at]
  end
end

local function sit(k, ticket, replica)
  redis.call("HSET", k.seats, ticket, replica)
  redis.call("ZINCRBY", k.room, -1, replica)
end

-- First come, first seated, while there is room.
local function seat_next(k)
  for _ = 1, SEATED_AT_ONCE do
    local replica = roomiest(k, "")
    local ticket = replica and redis.call("ZRANGE", k.line, 0, 0)[1]
    if not ticket then
      return
    end
    redis.call("ZREM", k.line, ticket)
    sit(k, ticket, replica)
    local info = redis.call("HGET", k.replicas, replica)
    redis.call("PUBLISH", channel_of(ticket), ticket .. "\n" .. replica .. "\n" .. info)
  end
end

-- Gives the seat back if its replica is still there.
local function stand_up(k, ticket, replica)
  redis.call("HDEL", k.seats, ticket)
  if redis.call("ZSCORE", k.room, replica) then
    redis.call("ZINCRBY", k.room, 1, replica)
  end
end
