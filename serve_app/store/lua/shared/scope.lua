-- Twin: serve_app/limits/scope.py. Needs gcra.lua, window.lua and bound.lua. A scope `k` has `state`
-- and `leases`. The state is MessagePack of {at us, due ms, until ms} and six values for each bound: of
-- a rate field, debt, held, left, since us, limit, of a window field, used, number, 0, 0, 0. The leases
-- are a zset of what requests hold, until ms: "<request> <at us>" and for each bound " <field> <units>
-- <left> <limit>", of a window " <field> <units> <number> 0". No lease ends before `due`; the state is
-- kept till `until`.
local FIRST, EACH = 4, 6

local function read_state(k, now_us)
  local text = redis.call("GET", k.state)
  k.is = text and cmsgpack.unpack(text) or {now_us, 0, 0}
  if type(k.is) ~= "table" then
    error("a scope's state is none of ours") -- before anything is written
  end
end

-- Where the values of a field are in a state; nil if they are not there.
local function place_in(is, field)
  for at = FIRST, #is, EACH do
    if is[at] == field then
      return at
    end
  end
end

-- Puts the values of a field at the end of a state; returns where.
local function put(is, field, one, two, left, since_us, limit)
  local at = #is + 1
  is[at], is[at + 1], is[at + 2], is[at + 3], is[at + 4], is[at + 5] =
    field, one, two, left, since_us, limit
  return at
end

-- The values of the rate at `at` of a state, brought up to date at `limit`.
local function paid_at(is, at, limit, now_us)
  local refill = now_us > is[1] and (now_us - is[1]) * limit or 0
  return paid(is[at + 1], is[at + 2], is[at + 3], is[at + 4], refill, now_us)
end

-- Carries the values of limits that are not set any more, as long as they matter, into the state `is`:
-- a limit that comes back knows what was used of it.
local function carry_over(k, was, is, now_us)
  for from = FIRST, #was, EACH do
    local field, limit, for_us = was[from], was[from + 5], 0
    if place_in(is, field) then
      for_us = 0
    elseif limit > 0 then
      local debt, held, left, since_us = paid_at(was, from, limit, now_us)
      for_us = debt + held > 0 and divided_up(debt + held, limit) or 0
      was[from + 1], was[from + 2], was[from + 3], was[from + 4] = debt, held, left, since_us
    else
      local number, ends_us = window_of(PERIOD[string.sub(field, -1)], now_us)
      for_us = number == was[from + 2] and ends_us - now_us or 0
    end
    if for_us > 0 then
      put(is, field, was[from + 1], was[from + 2], was[from + 3], was[from + 4], limit)
      k.others_us = math.max(k.others_us or 0, for_us)
    end
  end
end
