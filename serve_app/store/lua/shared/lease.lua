-- Twin: serve_app/limits/scope.py. Needs gcra.lua and bound.lua; scope.lua tells what a lease looks like.
local RELEASED_AT_ONCE = 16

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
