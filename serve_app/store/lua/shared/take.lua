-- Twin: serve_app/limits/step.py. Needs ask.lua. `scopes` are those of one request, in their order.
local function scope(state, leases)
  return {state = state, leases = leases, bounds = {}, has = {}}
end

-- Gives each scope its bounds: a caller's own, where it has none of that kind the defaults; none at
-- all to a caller that is exempt.
local function bind_all(scopes, own, defaults, theirs, model)
  local all, one = lines(own, model)
  bind(scopes[1], all)
  bind(scopes[2], one)
  if scopes[1].exempt then
    return
  end
  all, one = lines(defaults, model)
  bind(scopes[1], all)
  bind(scopes[2], one)
  all, one = lines(theirs, model)
  bind(scopes[3], all)
  bind(scopes[4], one)
end

-- Takes what was asked, where it fits; returns the lease.
local function take(k, request, now_us, ttl_ms)
  local lease = {string.format("%s %.0f", request, now_us)}
  for _, is in ipairs(k.bounds) do
    local value = is.said.wait_us == 0 and k.values[is.field]
    if value and value.debt then
      value.debt, value.limit = value.debt + is.units * MINUTE_US, is.limit
      lease[#lease + 1] = string.format("%s %.0f %.0f %.0f %.0f", is.field, is.units, value.debt,
                                        value.returned, is.limit)
    elseif value then
      value.used = value.used + is.units
      lease[#lease + 1] = string.format("%s %.0f %.0f 0 0", is.field, is.units, value.number)
    end
  end
  local ttl_us, text = save(k, now_us), table.concat(lease, " ")
  redis.call("ZADD", k.leases, math.floor(now_us / 1000) + ttl_ms, text)
  redis.call("PEXPIRE", k.leases, math.max(ttl_ms, math.ceil(ttl_us / 1000)))
  return text
end
