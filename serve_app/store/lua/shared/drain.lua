-- Twin: serve_app/queueing/order/drain.py. Needs line.lua. How fast seats come free, and for whom.
local LEAST_SHARE = 0.05

-- Both windows of a figure together.
local function lately(k, at)
  return k.tally[at] + k.tally[at + 1]
end

-- How many seats come free in a ms; 0 if that is unknown.
local function freed_per_ms(k)
  local ended = lately(k, ENDED)
  return ended > 0 and k.tally[LENT] * ended / math.max(lately(k, LENT_MS), 1) or 0
end

-- The same for a class, less what the classes above it take.
local function left_per_ms(k, class)
  local freed, taken = freed_per_ms(k), 0
  for above = 0, class - 1 do
    taken = taken + lately(k, of(above) + TAKEN)
  end
  return math.max(freed - taken / (WINDOW_MS + k.now_ms % WINDOW_MS + 1), freed * LEAST_SHARE)
end

-- How long the one behind `ahead` tickets waits; 0 if nobody can tell.
local function behind(ahead, rate)
  return rate > 0 and (ahead + 1) / rate or 0
end

-- What one more of a class and a flow would wait, behind `kept` places.
local function wait_ms(k, class, flow, kept)
  local at, ahead = of(class), kept
  for above = 0, class - 1 do
    ahead = ahead + k.tally[of(above) + TICKETS]
  end
  local turns = ((flow and flow[WAITING] or 0) + 1) * k.tally[at + FLOWS]
  return behind(ahead + math.min(k.tally[at + TICKETS], turns), left_per_ms(k, class))
end
