-- Twin: serve_app/limits/scope.py. Needs settling.lua.
-- Writes a scope; it goes when it would have gone, or later if it matters longer.
local function rewrite(k, now_us, matters_us)
  local now_ms, until_ms = math.floor(now_us / 1000), k.is[4]
  k.is[2], k.is[4] = now_us, math.max(until_ms, now_ms + math.ceil(matters_us / 1000) + 1)
  if #k.is > 4 and k.is[4] > until_ms then
    redis.call("SET", k.state, cmsgpack.pack(k.is), "PX", k.is[4] - now_ms)
  elseif #k.is > 4 then
    redis.call("SET", k.state, cmsgpack.pack(k.is), "KEEPTTL")
  end
end

-- Puts what was `used`, by letter, in the place of what the lease of a scope holds. A lease whose time
-- is over is given back first, whoever noticed.
local function settle_scope(k, used, now_us)
  if not k.lease then
    return
  end
  for at = 5, #k.is, 4 do
    if k.is[at + 3] > 0 then
      k.is[at + 1] = paid(k, at, k.is[at + 3], now_us)
    end
  end
  local matters_us, late = 0, k.ends_ms and k.ends_ms <= math.floor(now_us / 1000)
  for _, term in ipairs(k.lease.terms) do
    local at, for_us = place_of(k, term, now_us)
    if at and late then
      correct(k.is, at, k.lease, term, -term.units)
    end
    if at then
      local held = (k.ends_ms and not late) and term.units or 0
      correct(k.is, at, k.lease, term, used[string.sub(term.field, -1)] - held)
      local limit = k.is[at + 3]
      matters_us = math.max(matters_us, for_us, limit > 0 and divided_up(k.is[at + 1], limit) or 0)
    end
  end
  redis.call("ZREM", k.leases, k.text)
  rewrite(k, now_us, matters_us)
end
