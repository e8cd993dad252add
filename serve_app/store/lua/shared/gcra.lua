-- Twin: serve_app/limits/gcra.py. TAT: the time at which the bucket will be full again, us.
local function server_time_us()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2]
end

-- Returns allowed 0|1, remaining, retry_after_us (-1: never), reset_after_us. Writes only if allowed.
local function take(bucket, interval_us, burst, cost, now_us)
  local tat_us = math.max(tonumber(redis.call("GET", bucket) or 0), now_us)
  local new_tat_us = tat_us + cost * interval_us
  local room_us = burst * interval_us - (new_tat_us - now_us)
  if room_us < 0 then
    local left = math.floor((burst * interval_us - (tat_us - now_us)) / interval_us)
    local wait_us = cost > burst and -1 or -room_us
    return 0, math.max(left, 0), wait_us, tat_us - now_us
  end
  if cost > 0 then
    local ttl_ms = math.ceil((new_tat_us - now_us) / 1000)
    redis.call("SET", bucket, string.format("%.0f", new_tat_us), "PX", ttl_ms)
  end
  return 1, math.floor(room_us / interval_us), 0, new_tat_us - now_us
end

-- Undoes the take of one unit that left `taken_tat_us`; what has refilled since stays as it is.
local function give_back(bucket, interval_us, taken_tat_us, now_us)
  local still_us = math.min(interval_us, math.max(0, taken_tat_us - now_us))
  local tat_us = tonumber(redis.call("GET", bucket) or 0) - still_us
  if tat_us <= now_us then
    redis.call("DEL", bucket)
  else
    local ttl_ms = math.ceil((tat_us - now_us) / 1000)
    redis.call("SET", bucket, string.format("%.0f", tat_us), "PX", ttl_ms)
  end
end
