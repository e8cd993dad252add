-- Twin: serve_app/queueing/state.py. `k` is one model's line: its keys, its tally, flows in use.
local MILLION, WINDOW_MS, GRACE_MS, RETRY_MAX_MS = 1000000, 20000, 5000, 60000
local BY_CLASS = 1e13 -- scores of one class are apart from those of the next

local function wide(number) -- sixteen digits, so that text sorts as numbers do
  return string.format("%016.0f", number)
end

local function rolled(window, number)
  if window[3] ~= number then
    return {0, window[3] == number - 1 and window[1] or 0, number}
  end
  return window
end

-- The line that KEYS name, at the store's time; without rules nobody is seated yet.
local function opened()
  local time = redis.call("TIME")
  local k = {replicas = KEYS[1], capacity = KEYS[2], lent = KEYS[3], room = KEYS[4],
             beats = KEYS[5], tickets = KEYS[6], held = KEYS[7], ages = KEYS[8], line = KEYS[9],
             callers = KEYS[10], turns = KEYS[11], lifts = KEYS[12], flows = KEYS[13],
             seen = KEYS[14], promised = KEYS[15], counts = KEYS[16], used = {},
             now_us = time[1] * 1000000 + time[2]}
  k.now_ms = math.floor(k.now_us / 1000)
  local text = redis.call("GET", k.counts)
  k.tally = text and cmsgpack.unpack(text) or {mode = "open", rules = {}, lent = 0, each = {},
                                               ended = {0, 0, 0}, lent_ms = {0, 0, 0}}
  local number = math.floor(k.now_ms / WINDOW_MS)
  k.tally.ended = rolled(k.tally.ended, number)
  k.tally.lent_ms = rolled(k.tally.lent_ms, number)
  for _, one in ipairs(k.tally.each) do
    one.taken = rolled(one.taken, number)
  end
  return k
end

-- Classes as the rules say; tickets of a class that is no longer there count as the last one's.
local function set_rules(k, text)
  if k.tally.text ~= text then
    local rules = cjson.decode(text)
    for at = #rules + 1, #k.tally.each do
      rules[at] = rules[#rules]
    end
    k.tally.text, k.tally.rules = text, rules
    for at = 1, #rules do
      k.tally.each[at] = k.tally.each[at] or {virtual = 0, waiting = 0, bytes = 0, running = 0,
                                              flows = 0, taken = {0, 0, 0}}
    end
  end
end

local function closed(k)
  for name, flow in pairs(k.used) do
    redis.call("HSET", k.flows, name, cmsgpack.pack(flow))
  end
  redis.call("SET", k.counts, cmsgpack.pack(k.tally))
end
