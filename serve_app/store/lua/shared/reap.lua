-- Twin: serve_app/queueing/order/steps.py. Needs next.lua. Whoever was silent too long is gone.
local REPLICA_SILENT_MS, GATEWAY_SILENT_MS, IDLE_MS = 2000, 5000, 600000
local AT_ONCE = 64 -- owners, lifts and idle flows that one step sees to at most

-- Takes away what `owner` (r:replica or g:channel) holds, as much as one step may; whether that was
-- all. The next step goes on.
local function emptied(k, owner, cost, beat)
  local budget = k.budget
  local held = redis.call("ZRANGE", k.held, "[" .. owner .. "|", "(" .. owner .. "|~", "BYLEX",
                          "LIMIT", 0, budget)
  for _, one in ipairs(held) do
    local ticket = ticket_of(k, string.match(one, "|([^|]*)$"))
    if ticket then forget(k, ticket, cost) end
    redis.call("ZREM", k.held, one)
  end
  k.budget = budget - #held
  local all, whose = #held < budget, beat or owner
  redis.call(all and "ZREM" or "ZADD", k.beats, unpack(all and {whose} or {0, whose}))
  return all
end

local function withdraw(k, replica)
  redis.call("HDEL", k.capacity, replica)
  redis.call("ZREM", k.room, replica)
  seats_of(k, replica)[1] = 0
  redis.call("HDEL", k.replicas, replica)
  if emptied(k, "r:" .. replica, 0) then
    redis.call("HDEL", k.lent, replica)
    k.seats[replica] = nil
  end
end

local function tidy(k)
  local silent = redis.call("ZRANGE", k.beats, "-inf", k.now_ms - REPLICA_SILENT_MS, "BYSCORE",
                            "LIMIT", 0, AT_ONCE, "WITHSCORES")
  for i = 1, #silent, 2 do
    if string.sub(silent[i], 1, 2) == "r:" then
      withdraw(k, string.sub(silent[i], 3))
    elseif tonumber(silent[i + 1]) <= k.now_ms - GATEWAY_SILENT_MS then
      emptied(k, "g:" .. string.sub(silent[i], 3), -1, silent[i])
    end
  end
  for _ = 1, AT_ONCE do
    local due = redis.call("ZRANGE", k.lifts, "-inf", wide(k.now_us), "BYSCORE", "LIMIT", 0, 1)
    if not due[1] then
      return
    end
    read(k, due[1])
    local flow = k.used[due[1]]
    flow[LIFTED] = flow[LIFTED] + 1
    turn(k, due[1], flow)
  end
end

-- Forgets flows that nobody has used for long, with their debts.
local function forget_idle(k)
  local idle = redis.call("ZRANGE", k.seen, "-inf", k.now_ms - IDLE_MS, "BYSCORE",
                          "LIMIT", 0, AT_ONCE)
  for _, name in ipairs(idle) do
    read(k, name)
    if k.used[name] and k.used[name][WAITING] > 0 then
      redis.call("ZADD", k.seen, k.now_ms, name)
    else
      k.used[name] = nil
      redis.call("ZREM", k.seen, name)
      redis.call("HDEL", k.flows, name)
    end
  end
end
