-- Twin: serve_app/queueing/promises.py. Needs moves.lua and drain.lua.
local AT_ONCE_KEPT = 64 -- promises that nobody came for, forgotten by one step at most

local function promised(k, class, from_ms, to_ms)
  local low, high = class * BY_CLASS + from_ms, class * BY_CLASS + to_ms
  return string.format("%.0f", low), string.format("%.0f", high)
end

local function is_promised(k, caller)
  return caller[PROMISED] > 0 and caller[FROM] <= k.now_ms and k.now_ms <= caller[UNTIL]
end

-- Takes note that a caller came again as it was told.
local function fulfil(k, ticket, caller)
  if is_promised(k, caller) then
    caller[PROMISED] = caller[PROMISED] - 1
    local low, high = promised(k, ticket.class, 0, BY_CLASS - 1)
    local first = redis.call("ZRANGE", k.promised_key, low, high, "BYSCORE", "LIMIT", 0, 1)[1]
    if first then redis.call("ZREM", k.promised_key, first) end
  end
end

-- How many places of a class are kept now; what was kept too long is forgotten.
local function due(k, class)
  local low, high = promised(k, class, 0, k.now_ms - GRACE_MS)
  local stale = redis.call("ZRANGE", k.promised_key, low, high, "BYSCORE", "LIMIT", 0, AT_ONCE_KEPT)
  if #stale > 0 then
    redis.call("ZREM", k.promised_key, unpack(stale))
  end
  return redis.call("ZCOUNT", k.promised_key, promised(k, class, 0, k.now_ms))
end

local function promise(k, ticket, after_ms)
  local due_ms = k.now_ms + math.floor(after_ms)
  redis.call("ZADD", k.promised_key, string.format("%.0f", ticket.class * BY_CLASS + due_ms),
             ticket.name)
  local caller = flow_made(k, select(2, names_of(ticket)))
  if k.now_ms > caller[UNTIL] then
    caller[PROMISED], caller[FROM] = 0, due_ms
  end
  caller[PROMISED], caller[UNTIL] = caller[PROMISED] + 1, math.max(caller[UNTIL], due_ms + GRACE_MS)
end

-- What a newcomer is told that may not wait: said, wait, when to come again; nil if it may.
local function refusal(k, ticket)
  local name, caller_name = names_of(ticket)
  local tally, rule = k.tally.each[ticket.class + 1], k.tally.rules[ticket.class + 1]
  local caller = flow_of(k, caller_name)
  local kept = (caller and is_promised(k, caller)) and 0 or due(k, ticket.class)
  local wait = wait_ms(k, ticket.class, flow_of(k, name), kept)
  local patience = ticket.deadline_us / 1000 - k.now_ms
  local full = tally.waiting + kept >= rule[3] or tally.bytes + ticket.bytes > rule[4]
  if not full and wait <= patience then
    if caller then fulfil(k, ticket, caller) end
    return nil
  end
  local low, high = promised(k, ticket.class, 0, BY_CLASS - 1)
  local ahead = redis.call("ZCOUNT", k.promised_key, low, high)
  local after = math.max(behind(ahead, left_per_ms(k, ticket.class)), wait - patience)
  if after > 0 and after <= RETRY_MAX_MS then
    promise(k, ticket, after)
  end
  return wait > patience and "late" or "full", wait, after
end
