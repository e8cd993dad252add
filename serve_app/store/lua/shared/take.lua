-- Twin: serve_app/limits/step.py. Needs ask.lua. `scopes` are those of one request, in their order.
local function scope(state, leases)
  return {state = state, leases = leases, bounds = {}, has = {}, is = false, expired = false,
          looked = false}
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

-- Writes a scope for as long as it matters, and drops what is over; `until_ms`: a new lease ends.
local function save(k, now_us, until_ms)
  local is, now_ms, ttl_us = k.is, math.floor(now_us / 1000), k.others_us or 0
  if k.looked then
    if #k.expired > 0 then
      redis.call("ZREM", k.leases, unpack(k.expired))
    end
    is[2] = tonumber(redis.call("ZRANGE", k.leases, 0, 0, "WITHSCORES")[2] or until_ms or 0)
  end
  is[2] = math.min(is[2], until_ms or is[2])
  for _, bound in ipairs(k.bounds) do
    if bound.at then
      ttl_us = math.max(ttl_us, bound.ends_in_us
                                or divided_up(is[bound.at + 1] + is[bound.at + 2], bound.limit))
    end
  end
  local ttl_ms = math.ceil(ttl_us / 1000) + 1
  is[3] = now_ms + ttl_ms
  if #is >= FIRST then
    redis.call("SET", k.state, cmsgpack.pack(is), "PX", ttl_ms)
  end
end

-- Takes what was asked, where it fits; returns the lease.
local function take(k, request, now_us, ttl_ms)
  local is, lease = k.is, {string.format("%s %d", request, now_us)}
  for _, bound in ipairs(k.bounds) do
    local at = bound.wait_us == 0 and bound.at
    if at then
      local mark = is[at + 2]
      if bound.period == "minute" then
        is[at + 2], mark = is[at + 2] + bound.units * MINUTE_US, is[at + 3]
      else
        is[at + 1] = is[at + 1] + bound.units
      end
      lease[#lease + 1] = string.format(" %s %d %.17g %d", bound.field, bound.units, mark, is[at + 5])
    end
  end
  local text, until_ms = table.concat(lease), math.floor(now_us / 1000) + ttl_ms
  save(k, now_us, until_ms)
  redis.call("ZADD", k.leases, until_ms, text)
  local kept = kept_ms(math.max(ttl_ms * 1000, is[3] * 1000 - now_us))
  if redis.call("PEXPIRE", k.leases, kept, "GT") == 0 then
    redis.call("PEXPIRE", k.leases, kept, "NX") -- the first; what another still needs is kept longer
  end
  return text
end
