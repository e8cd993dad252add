-- Twin: serve_app/auth/blocking.py. Needs blocking.lua. `k` names the three keys; a state is written
-- as the text "<changed> <rounds> <blocked until> <failure> <failure> ...".
local LEAST_KEPT_US = 60e6 -- for other gateways to hear of a success

local function read(k, subject)
  local at = {}
  for number in string.gmatch(redis.call("HGET", k.attempts, subject) or "0 0 0", "%d+") do
    at[#at + 1] = tonumber(number)
  end
  return {changed_us = at[1], rounds = at[2], until_us = at[3], failures_us = {unpack(at, 4)}}
end

local function as_text(state)
  local text = string.format("%.0f %.0f %.0f", state.changed_us, state.rounds, state.until_us)
  for _, at_us in ipairs(state.failures_us) do
    text = text .. string.format(" %.0f", at_us)
  end
  return text
end

-- Drops of `k.part` the oldest beyond `most` and those not changed since `since_us`.
local function forget(k, since_us, most, budget)
  local over = redis.call("ZCARD", k.part) - most
  local oldest = redis.call("ZRANGE", k.part, 0, budget - 1, "WITHSCORES")
  local gone = {}
  for i = 1, #oldest, 2 do
    if #gone >= over and tonumber(oldest[i + 1]) > since_us then
      break
    end
    gone[#gone + 1] = oldest[i]
  end
  if #gone > 0 then
    redis.call("ZREMRANGEBYRANK", k.part, 0, #gone - 1)
    redis.call("HDEL", k.attempts, unpack(gone))
  end
end

-- Both parts; whoever was blocked is remembered for a day after the longest block.
local function forget_old(k, now_us, ttl_us, most, budget)
  local suspect_us, blocked_us = math.max(ttl_us, LEAST_KEPT_US), ROUNDS_KEPT_US + LONGEST_BLOCK_US
  forget({attempts = k.attempts, part = k.suspects}, now_us - suspect_us, most, budget)
  forget({attempts = k.attempts, part = k.blocked}, now_us - blocked_us, most, budget)
end
