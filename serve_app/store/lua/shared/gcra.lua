-- Twin: serve_app/limits/gcra.py. A bucket is {debt, at_us, returned, limit}: what is still to be
-- refilled and what was ever given back, both in units × us of a minute, so that nothing is rounded.
local MINUTE_US = 60000000

local function server_time_us()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2]
end

-- A whole number that is not negative, from text; nil if it is none.
local function whole(text)
  return string.find(text, "^%d+$") and tonumber(text) or nil
end

local function divided_up(a, b)
  local rest = math.fmod(a, b)
  return (a - rest) / b + (rest > 0 and 1 or 0)
end

local function read_bucket(text, limit, now_us)
  local debt, at_us, returned, paid = string.match(text or "", "^(%d+) (%d+) (%d+) (%d+)$")
  if not debt then
    return {debt = 0, at_us = now_us, returned = 0, limit = limit}
  end
  return {debt = tonumber(debt), at_us = tonumber(at_us), returned = tonumber(returned),
          limit = tonumber(paid)}
end

local function bucket_text(is)
  return string.format("%.0f %.0f %.0f %.0f", is.debt, is.at_us, is.returned, is.limit)
end

-- Brings the debt of a bucket up to date.
local function pay(bucket, now_us)
  local paid = math.max(now_us - bucket.at_us, 0) * bucket.limit
  bucket.debt, bucket.at_us = math.max(bucket.debt - paid, 0), math.max(now_us, bucket.at_us)
end

-- What a bucket says to `units`; nothing is taken. Its debt is up to date.
local function ask_bucket(bucket, bound, units)
  local full, need = bound.burst * MINUTE_US, units * MINUTE_US
  local room = full - bucket.debt - need
  local after = bucket.debt + (room >= 0 and need or 0)
  local left = math.max(full - after, 0)
  return {left = (left - math.fmod(left, MINUTE_US)) / MINUTE_US,
          wait_us = room >= 0 and 0 or divided_up(-room, bound.limit),
          reset_us = divided_up(after, bound.limit)}
end

-- Undoes `units` of a take at `at_us` that left the debt `after`, as far as they still matter: what
-- would have been refilled by now without the take is not given back again.
local function give_back(bucket, units, at_us, after, returned, now_us)
  local still = after - (bucket.returned - returned) - math.max(now_us - at_us, 0) * bucket.limit
  local back = math.max(math.min(units * MINUTE_US, still, bucket.debt), 0)
  bucket.debt, bucket.returned = bucket.debt - back, bucket.returned + back
end
