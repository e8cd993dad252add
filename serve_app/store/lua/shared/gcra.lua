-- Twin: serve_app/limits/gcra.py. A bucket owes {debt, total}: what is still to be refilled, in units
-- × us of a minute so that nothing is rounded, and all units that were ever taken.
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
  return string.format("%d", math.min(math.ceil(us / 1000) + 1, MOST))
end

local function divided_up(a, b)
  local rest = math.fmod(a, b)
  return (a - rest) / b + (rest > 0 and 1 or 0)
end

-- What a bucket that owes `debt` says to `units`: what is left, how long to wait, when all is back.
local function ask_bucket(debt, bound, units)
  local full, need = bound.burst * MINUTE_US, units * MINUTE_US
  local room = full - debt - need
  local after = room >= 0 and debt + need or debt
  local left = after < full and full - after or 0
  return (left - math.fmod(left, MINUTE_US)) / MINUTE_US,
         (room >= 0 or units == 0) and 0 or divided_up(-room, bound.limit),
         after > 0 and divided_up(after, bound.limit) or 0
end

-- The debt without `units` of a take after which `then_total` had ever been taken, as far as they are
-- still owed: debts are paid in their order, so what was taken later is owed last.
local function given_back(debt, total, units, then_total)
  local still = debt - (total - then_total) * MINUTE_US
  return debt - math.max(math.min(units * MINUTE_US, still), 0)
end
