-- Twin: serve_app/limits/scope.py. Needs gcra.lua, window.lua and bound.lua. A scope `k` has its
-- bounds, `state` (hash: "born" and a text for each bound) and `leases` (zset: what a request holds ->
-- expiry, ms). A lease is "<request> <at_us>" and for each bound " <field> <units> <total> <limit>", of
-- a window " <field> <units> <number> 0".
local RELEASED_AT_ONCE = 16
local SEAT_WAIT_US = 1000000 -- nobody knows when a running request ends; ask again in a second

local function period_of(field)
  return PERIOD[string.sub(field, -1)]
end

-- The value in `text`; of a bucket, up to date at `limit`, or at its own if it `keeps` that.
local function read_value(field, text, limit, now_us, keeps)
  if period_of(field) ~= "minute" then
    return read_window(text, period_of(field), now_us)
  end
  local bucket = read_bucket(text, limit, now_us)
  bucket.limit = keeps and bucket.limit or limit
  pay(bucket, now_us)
  return bucket
end

local function value_text(value)
  return value.debt and bucket_text(value) or window_text(value)
end

-- Charges a value so many units `more` than its `term` of a lease took, or gives back as many as less.
local function correct(value, lease, term, more, born_us)
  if not value.debt then
    value.used = value.number == term.total and math.max(value.used + more, 0) or value.used
  elseif more >= 0 then
    take_from(value, more)
  elseif lease.at_us >= born_us then
    give_back(value, -more, term.total)
  end
end

-- What a request holds of a scope; nil if `text` is no lease.
local function lease_of(text)
  local at_us, rest = string.match(text, "^%S+ (%d+)(.*)$")
  if not at_us or not whole(at_us) or string.gsub(rest, " s?%a %d+ %d+ %d+", "") ~= "" then
    return nil
  end
  local lease = {at_us = tonumber(at_us), terms = {}}
  for field, units, total, limit in string.gmatch(rest, "(%a+) (%d+) (%d+) (%d+)") do
    local term = {field = field, units = whole(units), total = whole(total), limit = whole(limit)}
    local period = period_of(field) or ""
    if period == "" or not (term.units and term.total and term.limit)
       or (period == "minute" and term.limit == 0) then
      return nil
    end
    lease.terms[#lease.terms + 1] = term
  end
  return lease
end
