-- Twin: serve_app/queueing/order.py. `k` names the seven keys of one model's line.
local REPLICA_SILENT_MS = 3000
local GATEWAY_SILENT_MS = 5000
local SEATED_AT_ONCE = 512 -- seats handed out by one step at most; the next step goes on
local DRAIN_TAU_MS = 10000 -- the drain rate forgets with this time constant

local function now_us_ms()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2], time[1] * 1000 + math.floor(time[2] / 1000)
end

local function named(keys)
  return {replicas = keys[1], capacity = keys[2], room = keys[3], beats = keys[4],
          line = keys[5], seats = keys[6], drain = keys[7]}
end

local function channel_of(ticket)
  return string.match(ticket, "^(.*)/")
end

-- Seats that come free a second, with `left` of them just now; a decaying count.
local function drain_rate(k, now_ms, left)
  local was = redis.call("HMGET", k.drain, "rate", "at_ms")
  local age_ms = math.max(now_ms - tonumber(was[2] or now_ms), 0)
  local rate = tonumber(was[1] or 0) * math.exp(-age_ms / DRAIN_TAU_MS) + left * 1000 / DRAIN_TAU_MS
  if left > 0 then
    redis.call("HSET", k.drain, "rate", string.format("%.9f", rate), "at_ms", now_ms)
  end
  return rate
end

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
