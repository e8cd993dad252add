-- Twin: serve_app/limits/bound.py. A bound is {letter, field, period, limit, burst, shadow}, read from
-- the text that serve_app/allowance.py writes; the letter says what it counts.
local PERIOD = {r = "minute", t = "minute", i = "minute", o = "minute", R = "day", T = "day",
                I = "day", O = "day", D = "day", M = "month", E = "month", c = "none"}

-- The line of the caller itself and the line of `model`.
local function lines(text, model)
  if not string.find(text, "\n", 1, true) then
    return text, ""
  end
  local _, at = string.find(text, "\n" .. model .. "\t", 1, true)
  return string.match(text, "^[^\n]*"), at and string.match(text, "^[^\n]*", at + 1) or ""
end

-- Adds the bounds of a line to those of a scope, where it has none of that kind yet.
local function bind(k, line)
  if line == "x 0 0 0" then
    k.exempt = true
    return
  end
  for letter, limit, burst, shadow in string.gmatch(line, "(%a) (%d+) (%d+) (%d)") do
    local field, limit, burst = letter, tonumber(limit), tonumber(burst)
    if shadow == "1" then
      field = "s" .. letter
    end
    if letter == "n" then
      k.output_cap = k.output_cap or limit
    elseif not k.has[field] and PERIOD[letter] and limit <= MOST and burst <= MOST then
      k.has[field] = true
      k.bounds[#k.bounds + 1] = {letter = letter, field = field, period = PERIOD[letter],
                                 shadow = shadow == "1", limit = limit, burst = burst, at = false,
                                 ends_in_us = false, units = 0, left = 0, wait_us = 0, reset_us = 0}
    end
  end
end
