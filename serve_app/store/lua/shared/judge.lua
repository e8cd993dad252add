-- Twin: serve_app/limits/step.py. Needs demand.lua and take.lua.
local NOTHING = {r = 0, R = 0, c = 0, i = 0, I = 0, o = 0, O = 0, t = 0, T = 0, M = 0, D = 0, E = 0}

local function is_tighter(bound, other)
  return other.wait_us ~= -1 and (bound.wait_us == -1 or bound.wait_us > other.wait_us)
end

-- Asks every bound for `full` and at `least` so much, by letter; returns the one that refuses longest.
local function ask_all(scopes, full, least, now_us)
  local place, worst, count = 0, nil, 0
  for _, k in ipairs(scopes) do
    if #k.bounds > 0 then
      load(k, now_us)
    end
    for _, is in ipairs(k.bounds) do
      count = count + 1
      ask(k, is, full[is.letter], least[is.letter], now_us)
      if is.wait_us ~= 0 and not is.shadow and (not worst or is_tighter(is, worst)) then
        place, worst = count, is
      end
    end
  end
  return place
end

-- Asks every bound, and takes from all or from none.
local function judged(scopes, d, out, request, now_us, ttl_ms)
  local asks = d.requests > 0
  local full = asks and counted(d, d.input, out) or NOTHING
  local place = ask_all(scopes, full, asks and counted(d, d.least, 1) or NOTHING, now_us)
  local said, leases = {}, {"", "", "", ""}
  for at, k in ipairs(scopes) do
    if #k.bounds > 0 and place == 0 and asks then
      leases[at] = take(k, request, now_us, ttl_ms)
    elseif #k.bounds > 0 and k.expired and #k.expired > 0 then
      save(k, now_us)
    end
    for _, is in ipairs(k.bounds) do
      if place > 0 and is.wait_us == 0 then
        ask(k, is, 0, 0, now_us)
      end
      said[#said + 1] = string.format("%d %s %d %d %d %d %d %d", at, is.letter, is.shadow and 1 or 0,
                                      is.limit, is.burst, is.left, is.wait_us, is.reset_us)
    end
  end
  return place, table.concat(said, "\n"), leases
end
