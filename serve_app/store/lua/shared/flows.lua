-- Twin: serve_app/queueing/order/flows.py. Needs line.lua. What a flow is made of, by place:
local COUNTER, WEIGHT, WAITING, SINCE, LIFTED, VIRTUAL, PROMISED, AT, DUE =
  1, 2, 3, 4, 5, 6, 7, 8, 9
local UNITS_PER_TOKEN, TOP_COUNTER = 100, 9e15

local function units(tokens, weight)
  weight = math.min(math.max(weight, 0.01), 1000)
  return math.floor(tokens * UNITS_PER_TOKEN / weight + 0.5)
end

local function flow_name(class, ...)
  return table.concat({string.format("%02d", class), ...}, "|")
end

-- Reads flows that a step will need, in one call.
local function read(k, name, ...)
  if k.used[name] and k.used[... or name] then
    return
  end
  local texts = redis.call("HMGET", k.flows, name, ...)
  for at, one in ipairs({name, ...}) do
    if texts[at] and not k.used[one] then
      k.used[one] = cmsgpack.unpack(texts[at])
    end
  end
end

-- Makes flows that were not known; both are used now.
local function made(k, name, caller_name)
  k.used[name] = k.used[name] or {0, 1, 0, 0, 0, 0, "", "", 0}
  k.used[caller_name] = k.used[caller_name] or {0, 1, 0, 0, 0, 0, "", "", 0}
  redis.call("ZADD", k.seen, k.now_ms, name, k.now_ms, caller_name)
  return k.used[name], k.used[caller_name]
end

-- Gives a caller its place among those of its tenant that wait, or none.
local function caller_placed(k, ticket, caller)
  local at = caller[WAITING] > 0
    and flow_name(ticket.class, ticket.tenant, wide(caller[COUNTER]), ticket.caller) or ""
  if at ~= caller[AT] then
    if caller[AT] ~= "" then redis.call("ZREM", k.callers, caller[AT]) end
    if at ~= "" then redis.call("ZADD", k.callers, 0, at) end
    caller[AT] = at
  end
end

-- Gives a flow its place among those that wait, or none; and the time when it is lifted next.
local function turn(k, name, flow)
  local class, at = tonumber(string.sub(name, 1, 2)), ""
  local rank = class - flow[LIFTED]
  if flow[WAITING] > 0 then
    local lifted = flow[LIFTED] > 0
    at = string.format("%02d|%d|%s|%s", rank, lifted and 0 or 1,
                       wide(lifted and flow[SINCE] or flow[COUNTER]), name)
  end
  if at ~= flow[AT] then
    if flow[AT] ~= "" then redis.call("ZREM", k.turns, flow[AT]) end
    if at ~= "" then redis.call("ZADD", k.turns, 0, at) end
    flow[AT] = at
  end
  local due_us = 0
  if at ~= "" and rank > 0 then
    due_us = flow[SINCE] + (flow[LIFTED] + 1) * k.tally[of(class) + PROMOTE]
  end
  if due_us ~= flow[DUE] then
    redis.call(due_us > 0 and "ZADD" or "ZREM", k.lifts,
               unpack(due_us > 0 and {wide(due_us), name} or {name}))
    flow[DUE] = due_us
  end
end
