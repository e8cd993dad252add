-- Twin: serve_app/limits/scope.py. Needs bound.lua and scope.lua. `d` is what a request asks for.
local function load(k, now_us)
  local names = {"born"}
  for at, is in ipairs(k.bounds) do
    names[at + 1] = is.field
  end
  local told = redis.call("HMGET", k.state, unpack(names))
  k.born_us, k.values = tonumber(told[1] or now_us), {}
  for at, is in ipairs(k.bounds) do
    if is.unit ~= "seats" and is.limit > 0 then
      k.values[is.field] = read_value(is.field, told[at + 1], is.limit, now_us)
    end
  end
  k.changed = release_expired(k, now_us)
end

local function ask_seats(k, bound, units, now_us)
  local from = string.format("(%.0f", math.floor(now_us / 1000))
  local taken = redis.call("ZCOUNT", k.leases, from, "+inf")
  local left = bound.limit - taken - units
  return {left = math.max(left >= 0 and left or left + units, 0),
          wait_us = left >= 0 and 0 or SEAT_WAIT_US, reset_us = taken + units > 0 and SEAT_WAIT_US or 0}
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

-- Writes the values of a scope; returns for how long they matter, us.
local function save(k, now_us)
  local written, ttl_us = {"born", string.format("%.0f", k.born_us)}, 1000
  for _, is in ipairs(k.bounds) do
    local value = k.values[is.field]
    if value then
      written[#written + 1], written[#written + 2] = is.field, value_text(value)
      ttl_us = math.max(ttl_us, value.ends_us and value.ends_us - now_us
                                or divided_up(value.debt, is.limit))
    end
  end
  if #written > 2 then
    redis.call("HSET", k.state, unpack(written))
    redis.call("PEXPIRE", k.state, math.ceil(ttl_us / 1000))
  end
  return ttl_us
end
