-- Twin: serve_app/limits/scope.py. Needs scope.lua. `d` is what a request asks for.
-- Reads a scope, and what requests hold whose time is over: their gateway is gone. Nothing is written.
local function load(k, now_us)
  local names = {"born"}
  for at, is in ipairs(k.bounds) do
    names[at + 1] = is.field
  end
  local told = redis.call("HMGET", k.state, unpack(names))
  k.born_us, k.is_new, k.values = tonumber(told[1] or now_us), not told[1], {}
  for at, is in ipairs(k.bounds) do
    if is.unit ~= "seats" and is.limit > 0 then
      k.values[is.field] = read_value(is.field, told[at + 1], is.limit, now_us)
    end
  end
  k.expired = redis.call("ZRANGE", k.leases, "-inf", math.floor(now_us / 1000), "BYSCORE",
                         "LIMIT", 0, RELEASED_AT_ONCE)
  for _, text in ipairs(k.expired) do
    local lease = lease_of(text) or {terms = {}}
    for _, term in ipairs(lease.terms) do
      if k.values[term.field] then
        correct(k.values[term.field], lease, term, -term.units, k.born_us)
      end
    end
  end
end

local function ask_seats(k, bound, units, now_us)
  local from = string.format("(%.0f", math.floor(now_us / 1000))
  local taken = redis.call("ZCOUNT", k.leases, from, "+inf")
  local left = bound.limit - taken - units
  local fits, held = left >= 0 or units == 0, taken + units > 0
  return {left = math.max(left >= 0 and left or left + units, 0),
          wait_us = fits and 0 or SEAT_WAIT_US, reset_us = held and SEAT_WAIT_US or 0}
end

-- What a bound says to a request that asks for `full` and needs at `least` so much, by unit.
local function ask(k, bound, full, least, now_us)
  local units, never = math.min(full[bound.unit], bound.burst), least[bound.unit] > bound.burst
  bound.units = never and 0 or units
  local said
  if bound.unit == "seats" then
    said = ask_seats(k, bound, bound.units, now_us)
  elseif bound.limit == 0 then
    said = {left = 0, wait_us = 0, reset_us = 0}
  elseif bound.period == "minute" then
    said = ask_bucket(k.values[bound.field], bound, bound.units)
  else
    said = ask_window(k.values[bound.field], bound, bound.units, now_us)
  end
  said.wait_us = never and -1 or said.wait_us
  bound.said = said
end
