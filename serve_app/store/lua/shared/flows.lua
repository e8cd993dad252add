-- Twin: serve_app/queueing/flows.py. Needs line.lua. What a flow is made of, by place:
local COUNTER, WEIGHT, WAITING, SINCE, LIFTED, VIRTUAL, PROMISED, AT = 1, 2, 3, 4, 5, 6, 7, 8
local UNITS_PER_TOKEN, TOP_COUNTER = 100, 9e15

local function units(tokens, weight)
  weight = math.min(math.max(weight, 0.01), 1000)
  return math.floor(tokens * UNITS_PER_TOKEN / weight + 0.5)
end

local function flow_name(class, ...)
  return table.concat({string.format("%02d", class), ...}, "|")
end

-- A flow that is known, nil if it is not; it is written when the step ends.
local function flow_of(k, name)
  local flow = k.used[name]
  if not flow then
    local text = redis.call("HGET", k.flows, name)
    flow = text and cmsgpack.unpack(text)
    k.used[name] = flow or nil
  end
  return flow or nil
end

local function flow_made(k, name)
  local flow = flow_of(k, name) or {0, 1, 0, 0, 0, 0, "", ""}
  k.used[name] = flow
  redis.call("ZADD", k.seen, k.now_ms, name)
  return flow
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
  if at ~= "" and rank > 0 then
    local due_us = flow[SINCE] + (flow[LIFTED] + 1) * k.tally.rules[class + 1][2]
    redis.call("ZADD", k.lifts, wide(due_us), name)
  elseif class > 0 then
    redis.call("ZREM", k.lifts, name)
  end
end
