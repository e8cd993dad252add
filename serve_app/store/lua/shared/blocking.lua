-- Twin: serve_app/auth/blocking.py. `k` names the three keys; times are us since epoch. A state is
-- the text "<changed> <rounds> <blocked until> <failure> <failure> ...".
local FIRST_BLOCK_US, LONGEST_BLOCK_US, ROUNDS_KEPT_US = 30e6, 3600e6, 86400e6
local LEAST_KEPT_US = 60e6 -- for other gateways to hear of a success

local function server_time_us()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2]
end

local function read(k, subject)
  local at = {}
  for number in string.gmatch(redis.call("HGET", k.attempts, subject) or "", "%d+") do
    at[#at + 1] = tonumber(number)
  end
  return {changed_us = at[1] or 0, rounds = at[2] or 0, until_us = at[3] or 0,
          failures_us = {unpack(at, 4)}}
end

local function as_text(state)
  local text = string.format("%.0f %.0f %.0f", state.changed_us, state.rounds, state.until_us)
  for _, at_us in ipairs(state.failures_us) do
    text = text .. string.format(" %.0f", at_us)
  end
  return text
end

-- Returns us left of the block that refuses this failure, and us of the block that it begins.
local function fail(state, at_us, most_failures, ttl_us)
  at_us = math.max(at_us, state.failures_us[#state.failures_us] or 0)
  if at_us < state.until_us then
    return state.until_us - at_us, 0
  end
  if at_us >= state.until_us + ROUNDS_KEPT_US then
    state.rounds, state.until_us = 0, 0
  end
  local counting_us = {}
  for _, earlier_us in ipairs(state.failures_us) do
    if earlier_us > at_us - ttl_us then
      counting_us[#counting_us + 1] = earlier_us
    end
  end
  counting_us[#counting_us + 1] = at_us
  state.failures_us = counting_us
  if #counting_us < most_failures then
    return 0, 0
  end
  local block_us = math.min(FIRST_BLOCK_US * 2 ^ math.min(state.rounds, 7), LONGEST_BLOCK_US)
  state.rounds, state.until_us, state.failures_us = state.rounds + 1, at_us + block_us, {}
  return 0, block_us
end

-- Drops of `k.part` the oldest beyond `most` and those last changed before `since_us`.
local function forget(k, since_us, most, budget)
  local over = redis.call("ZCARD", k.part) - most
  local oldest = redis.call("ZRANGE", k.part, 0, budget - 1, "WITHSCORES")
  for i = 1, #oldest, 2 do
    if (i + 1) / 2 > over and tonumber(oldest[i + 1]) > since_us then
      return
    end
    redis.call("ZREM", k.part, oldest[i])
    redis.call("HDEL", k.attempts, oldest[i])
  end
end

local function forget_old(k, now_us, ttl_us, most, budget)
  local suspect_us, blocked_us = math.max(ttl_us, LEAST_KEPT_US), ROUNDS_KEPT_US + LONGEST_BLOCK_US
  forget({attempts = k.attempts, part = k.suspects}, now_us - suspect_us, most, budget)
  forget({attempts = k.attempts, part = k.blocked}, now_us - blocked_us, most, budget)
end
