-- Twin: serve_app/queueing/drain.py. Needs line.lua. How fast seats come free, and for whom.
local LEAST_SHARE = 0.05

-- How many seats come free in a ms; 0 if that is unknown.
local function freed_per_ms(k)
  local ended, lent_ms = k.tally.ended, k.tally.lent_ms
  if ended[1] + ended[2] == 0 then
    return 0
  end
  return k.tally.lent * (ended[1] + ended[2]) / math.max(lent_ms[1] + lent_ms[2], 1)
end

-- The same for a class, less what the classes above it take.
local function left_per_ms(k, class)
  local freed, taken = freed_per_ms(k), 0
  for at = 1, class do
    local window = k.tally.each[at].taken
    taken = taken + window[1] + window[2]
  end
  return math.max(freed - taken / (WINDOW_MS + k.now_ms % WINDOW_MS + 1), freed * LEAST_SHARE)
end

-- How long the one behind `ahead` tickets waits; 0 if nobody can tell.
local function behind(ahead, rate)
  return rate > 0 and (ahead + 1) / rate or 0
end

-- What one more of a class and a flow would wait, behind `kept` places.
local function wait_ms(k, class, flow, kept)
  local own, ahead = k.tally.each[class + 1], kept
  for at = 1, class do
    ahead = ahead + k.tally.each[at].waiting
  end
  local turns = ((flow and flow[WAITING] or 0) + 1) * own.flows
  return behind(ahead + math.min(own.waiting, turns), left_per_ms(k, class))
end
