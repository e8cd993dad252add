-- Twin: serve_app/limits/gcra.py. Debts are in units × us of a minute, so that nothing is rounded.
local MINUTE_US = 60000000
local LEAST_LEFT = 1e-6 -- a share below it is too small to be told; what is held becomes a debt
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

-- A bucket is {debt, held, left, since}: what was charged and is not refilled; what running requests
-- hold and is not refilled; the share that is left of what was held at `since`, the last time that all
-- was refilled. Brings it up to date, `refill` units × us later.
local function paid(debt, held, left, since_us, refill, now_us)
  if refill <= debt then
    return debt - refill, held, left, since_us
  elseif refill - debt >= held then
    return 0, 0, 1, now_us
  end
  left, held = left * (1 - (refill - debt) / held), held - (refill - debt)
  if left < LEAST_LEFT then
    return held, 0, 1, now_us
  end
  return 0, held, left, since_us
end

-- Puts `used` units in the place of `units` that a request holds since `at_us`, when `then_left` was
-- left; what is refilled of it already pays for the use. Returns debt and held.
local function put_right(debt, held, left, since_us, units, at_us, then_left, used)
  local all, mine = units * MINUTE_US, 0
  if at_us >= since_us then
    mine = math.min(math.floor(all * (left / then_left)), held)
  end
  return debt + math.max(used * MINUTE_US - (all - mine), 0), held - mine
end
