-- Twin: serve_app/queueing/order.py. `k` names the seven keys of one model's line.
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
