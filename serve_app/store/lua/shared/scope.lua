-- Twin: serve_app/limits/scope.py. Needs gcra.lua, window.lua and bound.lua. A scope `k` has `state`
-- and `leases`. The state is MessagePack of {born us, at us, due ms, until ms} and for each
-- rate field, debt, total, limit, for each window field, used, number, 0. The leases are a zset of what
-- requests hold, until ms: "<request> <at us>" and for each bound " <field> <units> <total> <limit>", of
-- a window " <field> <units> <number> 0". No lease ends before `due`; the state is kept till `until`.
local function read_state(k, now_us)
  local text = redis.call("GET", k.state)
  k.is = text and cmsgpack.unpack(text) or {now_us, now_us, 0, 0}
end

-- Where the value of a field is in a state; nil if it is not there.
local function place_in(is, field)
  for at = 5, #is, 4 do
    if is[at] == field then
      return at
    end
  end
end

-- The debt at `at` in a state, paid at `limit` since the state was written.
local function paid(k, at, limit, now_us)
  local debt = k.is[at + 1] - (now_us > k.is[2] and (now_us - k.is[2]) * limit or 0)
  return debt > 0 and debt or 0
end

-- Carries the values of limits that are not set any more, as long as they matter, into the state `is`:
-- a limit that comes back knows what was used of it.
local function carry_over(k, is, now_us)
  local was = k.is
  for field, from in pairs(k.place) do
    local used, number, limit, for_us = was[from + 1], was[from + 2], was[from + 3], 0
    if limit > 0 then
      used = paid(k, from, limit, now_us)
      for_us = used > 0 and divided_up(used, limit) or 0
    else
      local now_number, ends_us = window_of(PERIOD[string.sub(field, -1)], now_us)
      for_us = now_number == number and ends_us - now_us or 0
    end
    if for_us > 0 then
      local at = #is + 1
      is[at], is[at + 1], is[at + 2], is[at + 3] = field, used, number, limit
      k.others_us = math.max(k.others_us or 0, for_us)
    else
      is[1] = now_us -- what is held from before gives nothing back
    end
  end
end

-- Charges the value at `at` in a state so many units `more` than a `term` of a lease took, or gives
-- back as many as less.
local function correct(is, at, lease, term, more)
  if term.period ~= "minute" then
    is[at + 1] = is[at + 2] == term.total and math.max(is[at + 1] + more, 0) or is[at + 1]
  elseif more >= 0 then
    is[at + 1], is[at + 2] = is[at + 1] + more * MINUTE_US, is[at + 2] + more
  elseif lease.at_us >= is[1] then
    is[at + 1] = given_back(is[at + 1], is[at + 2], -more, term.total)
  end
end
