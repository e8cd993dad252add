-- Twin: serve_app/queueing/order/promises.py. Needs charge.lua and drain.lua.
local PROMISED_AT_ONCE = 64 -- to one caller; and so many forgotten by one step

local function promised(k, class, from_ms, to_ms)
  local low, high = class * BY_CLASS + from_ms, class * BY_CLASS + to_ms
  return string.format("%.0f", low), string.format("%.0f", high)
end

-- The promises to a caller that are not over; at which place the first is whose time it is.
local function promises_to(k, caller)
  local left, mine = {}, nil
  for due in string.gmatch(caller[PROMISED], "%d+") do
    if k.now_ms <= tonumber(due) + GRACE_MS then
      left[#left + 1] = due
      mine = mine or (tonumber(due) <= k.now_ms and #left) or nil
    end
  end
  return left, mine
end

local function unkept(k, class, ...)
  local at = of(class) + KEPT
  k.tally[at] = k.tally[at] - redis.call("ZREM", k.promised, ...)
end

-- Takes note that a caller came, perhaps as it was told.
local function fulfil(k, ticket, caller)
  if caller[PROMISED] == "" then
    return
  end
  local left, mine = promises_to(k, caller)
  if mine and not ticket.first_try then
    table.remove(left, mine)
    local low, high = promised(k, ticket.class, 0, BY_CLASS - 1)
    local first = redis.call("ZRANGE", k.promised, low, high, "BYSCORE", "LIMIT", 0, 1)[1]
    if first then unkept(k, ticket.class, first) end
  end
  caller[PROMISED] = table.concat(left, " ")
end

-- Forgets what was kept too long.
local function forget_stale(k, class)
  if k.tally[of(class) + KEPT] > 0 then
    local low, high = promised(k, class, 0, k.now_ms - GRACE_MS)
    local stale = redis.call("ZRANGE", k.promised, low, high, "BYSCORE", "LIMIT", 0, 64)
    if #stale > 0 then
      unkept(k, class, unpack(stale))
    end
  end
end

-- How many places of a class are kept for whoever comes until then.
local function kept_until(k, class, until_ms)
  if k.tally[of(class) + KEPT] == 0 then
    return 0
  end
  return redis.call("ZCOUNT", k.promised, promised(k, class, k.now_ms - GRACE_MS + 1, until_ms))
end

local function promise(k, ticket, after_ms)
  local due_ms = string.format("%.0f", k.now_ms + math.floor(after_ms))
  local caller = select(2, made(k, names_of(ticket)))
  if select(2, string.gsub(caller[PROMISED], "%d+", "")) < PROMISED_AT_ONCE then
    caller[PROMISED] = caller[PROMISED] .. (caller[PROMISED] == "" and "" or " ") .. due_ms
    local score, at = string.format("%.0f", ticket.class * BY_CLASS + due_ms), of(ticket.class) + KEPT
    k.tally[at] = k.tally[at] + redis.call("ZADD", k.promised, score, ticket.name)
  end
end
