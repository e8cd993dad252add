-- Twin: serve_app/limits/scope.py.
local SEAT_WAIT_US = 1000000 -- nobody knows when a running request ends; ask again in a second

-- What a bound on requests at once says: what is left, how long to wait.
local function ask_seats(k, bound, units, now_us)
  local from = string.format("(%d", math.floor(now_us / 1000))
  local taken = redis.call("ZCOUNT", k.leases, from, "+inf")
  local left = bound.limit - taken - units
  local fits, held = left >= 0 or units == 0, taken + units > 0
  return math.max(left >= 0 and left or left + units, 0), fits and 0 or SEAT_WAIT_US,
         held and SEAT_WAIT_US or 0
end
