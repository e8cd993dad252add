-- Twin: serve_app/limits/scope.py. Needs scope.lua.
-- The numbers in `text`, or nothing if one is none, or too large to be exact.
local function numbers(text)
  local found = {}
  for word in string.gmatch(text, "%S+") do
    local number = string.find(word, "^%-?%d[%d.e+-]*$") and tonumber(word)
    if not number or number < -1 or number > MOST then
      return {}
    end
    found[#found + 1] = number
  end
  return found
end

-- Finds the lease of each scope in its text; returns whether each text is one, or empty.
local function leases_of(scopes)
  local is_sound = true
  for _, k in ipairs(scopes) do
    k.lease = lease_of(k.text)
    is_sound = is_sound and (k.lease or k.text == "")
  end
  return is_sound
end

-- Reads whatever will be written: what is of a wrong type fails here, before anything is.
local function read_all(scopes, k, now_us)
  for _, k in ipairs(scopes) do
    if k.lease then
      local names = {"born"}
      for at, term in ipairs(k.lease.terms) do
        names[at + 1] = term.field
      end
      k.told = redis.call("HMGET", k.state, unpack(names))
      k.until_ms = tonumber(redis.call("ZSCORE", k.leases, k.text) or nil)
    end
  end
  redis.call("HLEN", k.usage)
  redis.call("SCARD", k.used)
  redis.call("HLEN", k.learned)
end

-- Puts what was `used`, by unit, in the place of what a lease holds; one that is over goes back first.
local function settle_scope(k, used, now_us)
  if not k.lease then
    return
  end
  local born_us, ttl_us = tonumber(k.told[1] or now_us), 0
  local written = {"born", string.format("%.0f", born_us)}
  for at, term in ipairs(k.lease.terms) do
    local value = read_value(term.field, k.told[at + 1], term.limit, now_us, true)
    local units = used[UNIT[string.sub(term.field, -1)]]
    if k.until_ms and k.until_ms <= math.floor(now_us / 1000) then
      correct(value, k.lease, term, -term.units, born_us)
    elseif k.until_ms then
      units = units - term.units
    end
    correct(value, k.lease, term, units, born_us)
    if k.told[at + 1] or (value.debt or value.used) > 0 then
      written[#written + 1], written[#written + 2] = term.field, value_text(value)
      ttl_us = math.max(ttl_us, value.ends_us and value.ends_us - now_us
                                or divided_up(value.debt, value.limit))
    end
  end
  redis.call("ZREM", k.leases, k.text)
  if #written > 2 then
    local left_ms = redis.call("PTTL", k.state)
    redis.call("HSET", k.state, unpack(written))
    redis.call("PEXPIRE", k.state, kept_ms(math.max(ttl_us, left_ms * 1000)))
  end
end
