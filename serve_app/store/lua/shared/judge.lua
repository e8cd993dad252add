-- Twin: serve_app/limits/step.py. Needs demand.lua and take.lua.
local function is_tighter(bound, other)
  local longer = bound.said.wait_us > other.said.wait_us
  return other.said.wait_us ~= -1 and (bound.said.wait_us == -1 or longer)
end

-- Asks every bound, and takes from all or from none.
local function judged(scopes, d, out, request, now_us, ttl_ms)
  local full, least, nothing = counted(d, out), counted(d, 1), counted({requests = 0, input = 0,
                               choices = 0, nanos_in = 0, nanos_out = 0}, 0)
  if d.requests == 0 then
    full, least = nothing, nothing
  end
  local place, worst, said, leases, count = 0, nil, {}, {}, 0
  for _, k in ipairs(scopes) do
    if #k.bounds > 0 then
      load(k, now_us)
    end
    for _, is in ipairs(k.bounds) do
      count = count + 1
      ask(k, is, full, least, now_us)
      if not is.shadow and is.said.wait_us ~= 0 and (not worst or is_tighter(is, worst)) then
        place, worst = count, is
      end
    end
  end
  for at, k in ipairs(scopes) do
    local binds = #k.bounds > 0
    leases[at] = binds and not worst and d.requests > 0 and take(k, request, now_us, ttl_ms) or ""
    if binds and leases[at] == "" and #k.expired > 0 then
      save(k, now_us)
    end
    for _, is in ipairs(k.bounds) do
      if worst and is.said.wait_us == 0 then
        ask(k, is, nothing, nothing, now_us)
      end
      said[#said + 1] = {at, is.letter, is.shadow and 1 or 0, is.limit, is.burst, is.said.left,
                         is.said.wait_us, is.said.reset_us}
    end
  end
  return place, said, leases
end
