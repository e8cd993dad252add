-- Twin: serve_app/limits/scope.py. Needs gcra.lua, window.lua and bound.lua. A scope `k` has `state`
-- and `leases`. The state is MessagePack of {born us, at us, due ms, until ms} and for each
-- rate field, debt, total, limit, for each window field, used, number, 0. The leases are a zset of what
-- requests hold, until ms: "<request> <at us>" and for each bound " <field> <units> <total> <limit>", of
-- a window " <field> <units> <number> 0". No lease ends before `due`; the state is kept till `until`.
local RELEASED_AT_ONCE = 16

local function read_state(k, now_us)
  local text = redis.call("GET", k.state)
  k.is = text and cmsgpack.unpack(text) or {now_us, now_us, 0, 0}
  if type(k.is) ~= "table" then
    error("a scope's state is none of ours") -- before anything is written
  end
end

-- Where the value of a field is in a state; nil if it is not there.
local function place_in(is, field)
  for at = 5, #is, 4 do
    if is[at] == field then
      return at
    end
  end
end

-- The debt at `at` in a state, paid at `limit` since the state was written.
local function paid(k, at, limit, now_us)
  local debt = k.is[at + 1] - (now_us > k.is[2] and (now_us - k.is[2]) * limit or 0)
  return debt > 0 and debt or 0
end

-- Charges the value at `at` in a state so many units `more` than a `term` of a lease took, or gives
-- back as many as less.
local function correct(is, at, lease, term, more)
  if term.period ~= "minute" then
    is[at + 1] = is[at + 2] == term.total and math.max(is[at + 1] + more, 0) or is[at + 1]
  elseif more >= 0 then
    is[at + 1], is[at + 2] = is[at + 1] + more * MINUTE_US, is[at + 2] + more
  elseif lease.at_us >= is[1] then
    is[at + 1] = given_back(is[at + 1], is[at + 2], -more, term.total)
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
    local term = {field = field, units = whole(units), total = whole(total), limit = whole(limit),
                  period = PERIOD[string.sub(field, -1)]}
    local is_known = term.period and term.period ~= "none"
    if not (is_known and term.units and term.total and term.limit)
       or (term.period == "minute" and term.limit == 0) then
      return nil
    end
    lease.terms[#lease.terms + 1] = term
  end
  return lease
end
