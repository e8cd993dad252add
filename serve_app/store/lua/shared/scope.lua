-- Twin: serve_app/limits/scope.py. Needs gcra.lua and window.lua. A scope `k` has its bounds, `state`
-- (hash: "born" and a text for each bound) and `leases` (zset: what a request holds -> expiry, ms).
-- A lease is "<request> <at_us>" and for each bound " <field> <units> <after> <returned> <limit>",
-- of a window " <field> <units> <number> 0 0".
local RELEASED_AT_ONCE = 16
local SEAT_WAIT_US = 1000000 -- nobody knows when a running request ends; ask again in a second

local function is_rate(field)
  return string.find(field, "[rtio]$") ~= nil
end

local function read_value(field, text, limit, now_us)
  if is_rate(field) then
    local bucket = read_bucket(text, limit, now_us)
    pay(bucket, now_us)
    return bucket
  end
  return read_window(text, string.find(field, "[ME]$") and "month" or "day", now_us)
end

local function value_text(value)
  return value.debt and bucket_text(value) or window_text(value)
end

-- Changes a value by `used` units instead of the `held` ones; a hold that is gone gives nothing back.
local function correct(value, lease, term, used, now_us)
  local held = lease.there and term.units or 0
  if value.debt and used < held then
    if lease.at_us >= lease.born_us then
      give_back(value, held - used, lease.at_us, term.after, term.returned, now_us)
    end
  elseif value.debt then
    value.debt = value.debt + (used - held) * MINUTE_US
  elseif value.number == term.after then
    value.used = math.max(value.used + used - held, 0)
  end
end

local function terms_of(text)
  local at_us, rest = string.match(text, "^%S+ (%d+)(.*)$")
  local terms = {}
  for field, units, after, returned, limit in
      string.gmatch(rest, "(%a+) (%d+) (%d+) (%d+) (%d+)") do
    terms[#terms + 1] = {field = field, units = tonumber(units), after = tonumber(after),
                         returned = tonumber(returned), limit = tonumber(limit)}
  end
  return tonumber(at_us), terms
end

-- Gives back what requests hold whose time is over: their gateway is gone.
local function release_expired(k, now_us)
  local expired = redis.call("ZRANGE", k.leases, "-inf", math.floor(now_us / 1000), "BYSCORE",
                             "LIMIT", 0, RELEASED_AT_ONCE)
  for _, text in ipairs(expired) do
    redis.call("ZREM", k.leases, text)
    local at_us, terms = terms_of(text)
    local lease = {at_us = at_us, born_us = k.born_us, there = true}
    for _, term in ipairs(terms) do
      if k.values[term.field] then
        correct(k.values[term.field], lease, term, 0, now_us)
      end
    end
  end
  return #expired > 0
end
