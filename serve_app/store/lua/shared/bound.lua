-- Twin: serve_app/limits/bound.py. A bound is {field, unit, period, limit, burst, shadow}, read from
-- the text that serve_app/allowance.py writes.
local UNIT = {r = "requests", t = "tokens", i = "input", o = "output", R = "requests", T = "tokens",
              I = "input", O = "output", M = "tokens", D = "cost", E = "cost", c = "seats"}
local PERIOD = {r = "minute", t = "minute", i = "minute", o = "minute", R = "day", T = "day",
                I = "day", O = "day", D = "day", M = "month", E = "month", c = ""}

-- The line of the caller itself and the line of `model`.
local function lines(text, model)
  local own = string.match(text, "^[^\n]*")
  local _, at = string.find(text, "\n" .. model .. "\t", 1, true)
  return own, at and string.match(text, "^[^\n]*", at + 1) or ""
end

-- Adds the bounds of a line to those of a scope, where it has none of that kind yet.
local function bind(k, line)
  if line == "x 0 0 0" then
    k.exempt = true
    return
  end
  for letter, limit, burst, shadow in string.gmatch(line, "(%a) (%d+) (%d+) (%d)") do
    local field = (shadow == "1" and "s" or "") .. letter
    if letter == "n" then
      k.output_cap = k.output_cap or math.min(tonumber(limit), MOST)
    elseif not k.has[field] and UNIT[letter] then
      k.has[field] = true
      k.bounds[#k.bounds + 1] = {letter = letter, field = field, unit = UNIT[letter],
                                 period = PERIOD[letter], shadow = shadow == "1",
                                 limit = math.min(tonumber(limit), MOST),
                                 burst = math.min(tonumber(burst), MOST)}
    end
  end
end
