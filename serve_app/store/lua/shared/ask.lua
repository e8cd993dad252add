-- Twin: serve_app/limits/scope.py. Needs scope.lua. `d` is what a request asks for.

-- Gives back what requests hold whose time is over: their gateway is gone. Nothing is written yet.
local function release(k, is, now_us)
  k.expired = redis.call("ZRANGE", k.leases, "-inf", math.floor(now_us / 1000), "BYSCORE", "LIMIT", 0,
                         RELEASED_AT_ONCE)
  k.looked = true
  for _, text in ipairs(k.expired) do
    local lease = lease_of(text) or {terms = {}}
    for _, term in ipairs(lease.terms) do
      local at = place_in(is, term.field)
      if at then
        correct(is, at, lease, term, 0)
      end
    end
  end
end

-- Reads a scope and brings the values of its bounds up to date.
local function load(k, now_us)
  read_state(k, now_us)
  local was, is = k.is, {math.max(now_us, k.is[1]), k.is[2], k.is[3]}
  for _, bound in ipairs(k.bounds) do
    local from = place_in(was, bound.field)
    if bound.limit > 0 and bound.period == "minute" then
      local debt, held, left, since_us = 0, 0, 1, now_us
      if from then
        debt, held, left, since_us = paid_at(was, from, bound.limit, now_us)
      end
      bound.at = put(is, bound.field, debt, held, left, since_us, bound.limit)
    elseif bound.limit > 0 and bound.period ~= "none" then
      local number, ends_us = window_of(bound.period, now_us)
      local used = from and was[from + 2] == number and was[from + 1] or 0
      bound.at, bound.ends_in_us = put(is, bound.field, used, number, 0, 0, 0), ends_us - now_us
    end
  end
  carry_over(k, was, is, now_us)
  k.is = is
  if now_us >= is[2] * 1000 then
    release(k, is, now_us)
  end
end

-- What a bound says to a request that asks for `full` and needs at `least` so much.
local function ask(k, bound, full, least, now_us)
  local never = least > bound.burst
  bound.units = never and 0 or math.min(full, bound.burst)
  if bound.period == "none" then
    bound.left, bound.wait_us, bound.reset_us = ask_seats(k, bound, bound.units, now_us)
  elseif bound.limit == 0 then
    bound.left, bound.wait_us, bound.reset_us = 0, 0, 0
  elseif bound.period == "minute" then
    local debt = k.is[bound.at + 1] + k.is[bound.at + 2]
    bound.left, bound.wait_us, bound.reset_us = ask_bucket(debt, bound, bound.units)
  else
    bound.left, bound.wait_us, bound.reset_us = ask_window(k.is[bound.at + 1], bound, bound.units,
                                                           bound.ends_in_us)
  end
  bound.wait_us = never and -1 or bound.wait_us
end
