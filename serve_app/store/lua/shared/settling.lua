-- Twin: serve_app/limits/scope.py. Needs bound.lua and scope.lua.
local function numbers(text)
  local found = {}
  for word in string.gmatch(text, "%S+") do
    if not string.find(word, "^%d[%d.e-]*$") or not tonumber(word) then
      return {}
    end
    found[#found + 1] = tonumber(word)
  end
  return found
end

-- Puts what was `used`, by unit, in the place of what the lease `text` holds of a scope.
local function settle_scope(k, text, used, now_us)
  if text == "" then
    return
  end
  local at_us, terms = terms_of(text)
  local there = redis.call("ZREM", k.leases, text) == 1
  local names = {"born"}
  for at, term in ipairs(terms) do
    names[at + 1] = term.field
  end
  local told = redis.call("HMGET", k.state, unpack(names))
  local lease = {at_us = at_us, born_us = tonumber(told[1] or now_us), there = there}
  local written, ttl_us = {"born", string.format("%.0f", lease.born_us)}, 0
  for at, term in ipairs(terms) do
    local value = read_value(term.field, told[at + 1], term.limit, now_us)
    correct(value, lease, term, used[UNIT[string.sub(term.field, -1)]], now_us)
    if told[at + 1] or (value.debt or value.used) > 0 then
      written[#written + 1], written[#written + 2] = term.field, value_text(value)
      ttl_us = math.max(ttl_us, value.ends_us and value.ends_us - now_us
                                or divided_up(value.debt, value.limit))
    end
  end
  local ttl_ms = math.ceil(ttl_us / 1000)
  if #written > 2 and ttl_ms > 0 then
    local left_ms = redis.call("PTTL", k.state)
    redis.call("HSET", k.state, unpack(written))
    redis.call("PEXPIRE", k.state, math.max(ttl_ms, left_ms))
  elseif #written > 2 then
    redis.call("HSET", k.state, unpack(written)) -- it goes when it would have gone
  end
end
