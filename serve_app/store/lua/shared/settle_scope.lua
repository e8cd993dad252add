-- Twin: serve_app/limits/scope.py. Needs settling.lua.
-- Writes a scope; it goes when it would have gone, or later if it matters longer.
local function rewrite(k, now_us, matters_us)
  local now_ms, until_ms = math.floor(now_us / 1000), k.is[3]
  k.is[1] = math.max(now_us, k.is[1])
  k.is[3] = math.max(until_ms, now_ms + math.ceil(matters_us / 1000) + 1)
  if #k.is >= FIRST and k.is[3] > until_ms then
    redis.call("SET", k.state, cmsgpack.pack(k.is), "PX", k.is[3] - now_ms)
  elseif #k.is >= FIRST then
    redis.call("SET", k.state, cmsgpack.pack(k.is), "KEEPTTL")
  end
end

-- Puts what was `used`, by letter, in the place of what the lease of a scope holds. A lease whose time
-- is over is given back first, whoever noticed.
local function settle_scope(k, used, now_us)
  if not k.lease then
    return
  end
  for at = FIRST, #k.is, EACH do
    if k.is[at + 5] > 0 then
      k.is[at + 1], k.is[at + 2], k.is[at + 3], k.is[at + 4] = paid_at(k.is, at, k.is[at + 5], now_us)
    end
  end
  local matters_us, late = 0, k.ends_ms and k.ends_ms <= math.floor(now_us / 1000)
  for _, term in ipairs(k.lease.terms) do
    local at, for_us = place_of(k, term, now_us)
    local units = used[string.sub(term.field, -1)]
    if at and k.ends_ms then
      correct(k.is, at, k.lease, term, late and 0 or units)
    end
    if at and (late or not k.ends_ms) then
      charge(k.is, at, term, units)
    end
    if at then
      local limit = k.is[at + 5]
      local still_us = limit > 0 and divided_up(k.is[at + 1] + k.is[at + 2], limit) or 0
      matters_us = math.max(matters_us, for_us, still_us)
    end
  end
  redis.call("ZREM", k.leases, k.text)
  rewrite(k, now_us, matters_us)
end
