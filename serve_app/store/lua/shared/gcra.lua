-- Twin: serve_app/limits/gcra.py. TAT: the time at which the bucket will be full again, us.
local function server_time_us()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2]
end

-- What a bucket of `rpm` a minute says to `cost`; nothing is written. 0 a minute is never.
local function look(bucket, rpm, burst, cost, now_us)
  if rpm == 0 then
    local free = cost == 0
    return {allowed = free, left = 0, wait_us = free and 0 or -1, reset_us = 0, rpm = 0,
            interval_us = 0, tat_us = 0}
  end
  local interval_us = math.ceil(60000000 / rpm)
  local tat_us = math.max(tonumber(redis.call("GET", bucket) or 0), now_us)
  local new_tat_us = tat_us + cost * interval_us
  local room_us = burst * interval_us - (new_tat_us - now_us)
  local said = {allowed = room_us >= 0, rpm = rpm, interval_us = interval_us, tat_us = new_tat_us}
  if said.allowed then
    said.left, said.wait_us, said.reset_us = math.floor(room_us / interval_us), 0, new_tat_us - now_us
  else
    said.left = math.max(math.floor((burst * interval_us - (tat_us - now_us)) / interval_us), 0)
    said.wait_us = cost > burst and -1 or -room_us
    said.reset_us = tat_us - now_us
  end
  return said
end

-- Writes down what `look` allowed.
local function take(bucket, said, now_us)
  if said.interval_us > 0 and said.tat_us > now_us then
    local ttl_ms = math.ceil((said.tat_us - now_us) / 1000)
    redis.call("SET", bucket, string.format("%.0f", said.tat_us), "PX", ttl_ms)
  end
end

-- Undoes the take of one unit that left `taken_tat_us`; what has refilled since stays as it is.
local function give_back(bucket, interval_us, taken_tat_us, now_us)
  if interval_us == 0 then
    return
  end
  local still_us = math.min(interval_us, math.max(0, taken_tat_us - now_us))
  local tat_us = tonumber(redis.call("GET", bucket) or 0) - still_us
  if tat_us <= now_us then
    redis.call("DEL", bucket)
  else
    local ttl_ms = math.ceil((tat_us - now_us) / 1000)
    redis.call("SET", bucket, string.format("%.0f", tat_us), "PX", ttl_ms)
  end
end
