-- Twin: serve_app/limits/scope.py. Needs scope.lua, which tells what a lease looks like.
local RELEASED_AT_ONCE = 16

-- What a request holds of a scope; nil if `text` is no lease.
local function lease_of(text)
  local at_us, rest = string.match(text, "^%S+ (%d+)(.*)$")
  if not at_us or not whole(at_us) or string.gsub(rest, " s?%a %d+ %d[%d.e-]* %d+", "") ~= "" then
    return nil
  end
  local lease = {at_us = tonumber(at_us), terms = {}}
  for field, units, mark, limit in string.gmatch(rest, "(%a+) (%d+) (%d[%d.e-]*) (%d+)") do
    local term = {field = field, units = whole(units), mark = tonumber(mark), limit = whole(limit),
                  period = PERIOD[string.sub(field, -1)]}
    local is_rate = term.period == "minute"
    if not (term.period and term.period ~= "none" and term.units and term.mark and term.limit)
       or (is_rate and not (term.limit > 0 and term.mark > 0 and term.mark <= 1)) then
      return nil
    end
    lease.terms[#lease.terms + 1] = term
  end
  return lease
end

-- Puts `used` units in the place of what a `term` of a lease holds of the values at `at`.
local function correct(is, at, lease, term, used)
  if term.period == "minute" then
    is[at + 1], is[at + 2] = put_right(is[at + 1], is[at + 2], is[at + 3], is[at + 4], term.units,
                                       lease.at_us, term.mark, used)
  elseif is[at + 2] == term.mark then
    is[at + 1] = math.max(is[at + 1] + used - term.units, 0)
  end
end

-- Charges `used` units for which nothing was held.
local function charge(is, at, term, used)
  if term.period == "minute" then
    is[at + 1] = is[at + 1] + used * MINUTE_US
  elseif is[at + 2] == term.mark then
    is[at + 1] = is[at + 1] + used
  end
end
