-- Twin: serve_app/auth/blocking.py. Times are us since epoch; a state is what is held against one
-- subject: {changed_us, rounds, until_us, failures_us}.
local FIRST_BLOCK_US, LONGEST_BLOCK_US, ROUNDS_KEPT_US = 30e6, 3600e6, 86400e6

local function server_time_us()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2]
end

local function clean()
  return {changed_us = 0, rounds = 0, until_us = 0, failures_us = {}}
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
