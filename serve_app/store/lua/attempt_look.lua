--[[
Read which addresses changed since the last look, and forget the old. One atomic step.

KEYS[1]  attempts      hash: subject -> "<changed> <rounds> <until> <failure> ...", us
KEYS[2]  suspects      zset: subject never blocked -> last change, us
KEYS[3]  blocked       zset: subject blocked now or lately -> last change, us
ARGV[1]  suspects_us   last change seen among the suspects
ARGV[2]  blocked_us    last change seen among the blocked
ARGV[3]  page          changes of each to read at most
ARGV[4]  ttl_us        for which a failure counts
ARGV[5]  most          subjects kept in each zset

Returns  {now_us, {subject, state, ...} of suspects, the same of the blocked}, oldest change first
Clock    the store's TIME
Twin     serve_app/auth/blocking.py
]]
--@include blocking
--@include suspects
local k = {attempts = KEYS[1], suspects = KEYS[2], blocked = KEYS[3]}
local now_us = server_time_us()

local function states(changed)
  local found = {}
  for i = 1, #changed, 2 do
    local state = redis.call("HGET", k.attempts, changed[i])
    found[i], found[i + 1] = changed[i], state or (changed[i + 1] .. " 0 0")
  end
  return found
end

local suspects = redis.call("ZRANGE", k.suspects, "(" .. ARGV[1], "+inf", "BYSCORE",
                            "LIMIT", 0, ARGV[3], "WITHSCORES")
local blocked = redis.call("ZRANGE", k.blocked, "(" .. ARGV[2], "+inf", "BYSCORE",
                           "LIMIT", 0, ARGV[3], "WITHSCORES")
local told = {now_us, states(suspects), states(blocked)}
forget_old(k, now_us, tonumber(ARGV[4]), tonumber(ARGV[5]), 64)
return told
