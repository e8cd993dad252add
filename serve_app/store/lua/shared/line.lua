-- Twin: serve_app/queueing/order/state.py. `k` is one model's line: its keys, its tally, what is in use.
local MILLION, WINDOW_MS, GRACE_MS, RETRY_MAX_MS = 1000000, 20000, 5000, 60000
local BY_CLASS = 1e13 -- scores of one class are apart from those of the next
-- The tally by place: of the whole line, then of each class.
local MODE, LENT, WINDOW, ENDED, LENT_MS, COUNTED, HEAD = 1, 2, 3, 4, 6, 8, 8
local CEILING, PROMOTE, MAX_TICKETS, MAX_BYTES, TIME_OF, TICKETS, BYTES, RUNNING, FLOWS, TAKEN,
  KEPT, WIDTH = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 12

local function wide(number) -- sixteen digits, so that text sorts as numbers do
  return string.format("%016.0f", number)
end

-- Where in the tally the figures of a class stand.
local function of(class)
  return HEAD + class * WIDTH
end

local function classes(k)
  return (#k.tally - HEAD) / WIDTH
end

-- Counts from now on in the window of the present time, and the time of lent seats.
local function rolled(tally, now_ms)
  local number = math.floor(now_ms / WINDOW_MS)
  local is_next = tally[WINDOW] == number - 1
  local function roll(at)
    tally[at], tally[at + 1] = 0, is_next and tally[at] or 0
  end
  if tally[WINDOW] ~= number then
    tally[WINDOW] = number
    roll(ENDED)
    roll(LENT_MS)
    for at = HEAD + TAKEN, #tally, WIDTH do
      roll(at)
    end
  end
  if tally[COUNTED] > 0 then
    local since_ms = math.min(math.max(now_ms - tally[COUNTED], 0), WINDOW_MS)
    tally[LENT_MS] = tally[LENT_MS] + tally[LENT] * since_ms
  end
  tally[COUNTED] = now_ms
  return tally
end

-- The line that KEYS name, at the store's time; without rules nobody is seated yet.
local function opened()
  local time = redis.call("TIME")
  local k = {replicas = KEYS[1], capacity = KEYS[2], lent = KEYS[3], room = KEYS[4],
             beats = KEYS[5], tickets = KEYS[6], held = KEYS[7], ages = KEYS[8], line = KEYS[9],
             callers = KEYS[10], turns = KEYS[11], lifts = KEYS[12], flows = KEYS[13],
             seen = KEYS[14], promised = KEYS[15], counts = KEYS[16], used = {}, seats = {}, budget = 256,
             now_us = time[1] * 1000000 + time[2]}
  k.now_ms = math.floor(k.now_us / 1000)
  local text = redis.call("GET", k.counts)
  k.tally = rolled(text and cmsgpack.unpack(text) or {"open", 0, 0, 0, 0, 0, 0, 0},
                   k.now_ms)
  return k
end
