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

-- Writes the values of a scope and drops what is over; returns for how long they matter, us.
local function save(k, now_us)
  if #k.expired > 0 then
    redis.call("ZREM", k.leases, unpack(k.expired))
  end
  local written, ttl_us = {"born", string.format("%.0f", k.born_us)}, 1000
  for _, is in ipairs(k.bounds) do
    local value = k.values[is.field]
    if value then
      written[#written + 1], written[#written + 2] = is.field, value_text(value)
      ttl_us = math.max(ttl_us, value.ends_us and value.ends_us - now_us
                                or divided_up(value.debt, is.limit))
    end
  end
  if #written > 2 then
    redis.call("HSET", k.state, unpack(written))
    redis.call("PEXPIRE", k.state, kept_ms(ttl_us), k.is_new and "NX" or "GT")
  end
  return ttl_us
end

-- Takes what was asked, where it fits; returns the lease.
local function take(k, request, now_us, ttl_ms)
  local lease = {string.format("%s %.0f", request, now_us)}
  for _, is in ipairs(k.bounds) do
    local value = is.said.wait_us == 0 and k.values[is.field]
    if value and value.debt then
      take_from(value, is.units)
      lease[#lease + 1] = string.format("%s %.0f %.0f %.0f", is.field, is.units, value.total,
                                        is.limit)
    elseif value then
      value.used = value.used + is.units
      lease[#lease + 1] = string.format("%s %.0f %.0f 0", is.field, is.units, value.number)
    end
  end
  local ttl_us, text = save(k, now_us), table.concat(lease, " ")
  redis.call("ZADD", k.leases, math.floor(now_us / 1000) + ttl_ms, text)
  local kept = kept_ms(math.max(ttl_ms * 1000, ttl_us))
  if redis.call("PEXPIRE", k.leases, kept, "NX") == 0 then
    redis.call("PEXPIRE", k.leases, kept, "GT") -- what another limit still needs is kept longer
  end
  return text
end
