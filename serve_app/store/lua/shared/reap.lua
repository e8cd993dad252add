-- Twin: serve_app/queueing/order.py. Needs line.lua and seats.lua.
local REPLICA_SILENT_MS = 3000
local GATEWAY_SILENT_MS = 5000

local function withdraw(k, replica)
  redis.call("HDEL", k.replicas, replica)
  redis.call("HDEL", k.capacity, replica)
  redis.call("ZREM", k.room, replica)
  redis.call("ZREM", k.beats, "r:" .. replica)
  local seats = redis.call("HGETALL", k.seats)
  for i = 1, #seats, 2 do
    if seats[i + 1] == replica then
      redis.call("HDEL", k.seats, seats[i])
    end
  end
end

local function forget_gateway(k, channel)
  redis.call("ZREM", k.beats, "g:" .. channel)
  local seats = redis.call("HGETALL", k.seats)
  for i = 1, #seats, 2 do
    if channel_of(seats[i]) == channel then
      stand_up(k, seats[i], seats[i + 1])
    end
  end
  for _, ticket in ipairs(redis.call("ZRANGE", k.line, 0, -1)) do
    if channel_of(ticket) == channel then
      redis.call("ZREM", k.line, ticket)
    end
  end
end

-- Whoever was silent too long is gone, and so is what it held.
local function reap(k, now_ms)
  local silent = redis.call("ZRANGE", k.beats, "-inf", now_ms - REPLICA_SILENT_MS, "BYSCORE",
                            "LIMIT", 0, 64, "WITHSCORES")
  for i = 1, #silent, 2 do
    local kind, name = string.sub(silent[i], 1, 2), string.sub(silent[i], 3)
    if kind == "r:" then
      withdraw(k, name)
    elseif tonumber(silent[i + 1]) <= now_ms - GATEWAY_SILENT_MS then
      forget_gateway(k, name)
    end
  end
end
