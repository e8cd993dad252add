-- Twin: serve_app/limits/gcra.py. A bucket is {debt, at_us, total, limit}: what is still to be
-- refilled, in units × us of a minute so that nothing is rounded, and all units that were ever taken.
local MINUTE_US = 60000000
local MOST = 9007199254740992 -- up to here a number is exact

local function server_time_us()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2]
end

-- A whole number that is not negative, from text; nil if it is none, or too large to be exact.
local function whole(text)
  local number = string.find(text, "^%d+$") and tonumber(text)
  return number and number <= MOST and number or nil
end

-- So many us as PEXPIRE wants them: what matters until then never goes a part of a ms earlier.
local function kept_ms(us)
  return string.format("%.0f", math.min(math.ceil(us / 1000) + 1, MOST))
end

local function divided_up(a, b)
  local rest = math.fmod(a, b)
  return (a - rest) / b + (rest > 0 and 1 or 0)
end

local function read_bucket(text, limit, now_us)
  local debt, at_us, total, paid = string.match(text or "", "^(%d+) (%d+) (%d+) (%d+)$")
  if not debt then
    return {debt = 0, at_us = now_us, total = 0, limit = limit}
  end
  return {debt = tonumber(debt), at_us = tonumber(at_us), total = tonumber(total),
          limit = tonumber(paid)}
end

local function bucket_text(is)
  return string.format("%.0f %.0f %.0f %.0f", is.debt, is.at_us, is.total, is.limit)
end

-- Brings the debt of a bucket up to date, at the bucket's limit.
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
          wait_us = (room >= 0 or units == 0) and 0 or divided_up(-room, bound.limit),
          reset_us = divided_up(after, bound.limit)}
end

-- Takes `units` from a bucket whose debt is up to date.
local function take_from(bucket, units)
  bucket.debt, bucket.total = bucket.debt + units * MINUTE_US, bucket.total + units
end

-- Undoes `units` of a take after which `total` had ever been taken, as far as they are still owed:
-- debts are paid in their order, so what was taken later is owed last.
local function give_back(bucket, units, total)
  local still = bucket.debt - (bucket.total - total) * MINUTE_US
  bucket.debt = bucket.debt - math.max(math.min(units * MINUTE_US, still), 0)
end
