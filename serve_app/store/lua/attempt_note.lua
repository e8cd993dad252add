--[[
Count failures of addresses, or clear them after a success; say who is blocked. One atomic step.

KEYS[1]  attempts      hash: subject -> "<changed> <rounds> <until> <failure> ...", us
KEYS[2]  suspects      zset: subject never blocked -> last change, us
KEYS[3]  blocked       zset: subject blocked now or lately -> last change, us
ARGV[1]  notes         JSON [[subject, 1 if a success came first, age of a failure in us ...] ...]
ARGV[2]  failures      that begin a block (>= 1)
ARGV[3]  ttl_us        for which a failure counts
ARGV[4]  most          subjects kept in each zset; the oldest change goes first

Returns  {now_us, {left_us, block_us, state} for each note}
         left_us: time left of the block that refused the last failure, 0 if it counted
         block_us: length of the last block that these failures began, 0 if none
Clock    the store's TIME
Twin     serve_app/auth/blocking.py
]]
--@include blocking
--@include suspects
local SPARE = 16 -- old subjects forgotten besides one for each note
local k = {attempts = KEYS[1], suspects = KEYS[2], blocked = KEYS[3]}
local now_us = server_time_us()
local failures, ttl_us = tonumber(ARGV[2]), tonumber(ARGV[3])

-- Two changes never get the same time, nor a later one an earlier: gateways read on from the last.
local suspect = redis.call("ZRANGE", k.suspects, 0, 0, "REV", "WITHSCORES")[2]
local blocked = redis.call("ZRANGE", k.blocked, 0, 0, "REV", "WITHSCORES")[2]
local change_us = math.max(now_us, tonumber(suspect or 0) + 1, tonumber(blocked or 0) + 1)

local function write(subject, state)
  redis.call("HSET", k.attempts, subject, as_text(state))
  if state.rounds > 0 then
    redis.call("ZREM", k.suspects, subject)
    redis.call("ZADD", k.blocked, state.changed_us, subject)
  else
    redis.call("ZREM", k.blocked, subject)
    redis.call("ZADD", k.suspects, state.changed_us, subject)
  end
end

local notes = cjson.decode(ARGV[1])
local told = {now_us}
for i, note in ipairs(notes) do
  local subject, changed = note[1], note[2] == 1
  local state = changed and clean() or read(k, subject)
  local left_us, block_us = 0, 0
  for age = 3, #note do
    local began_us
    left_us, began_us = fail(state, now_us - note[age], failures, ttl_us)
    changed = changed or left_us == 0
    block_us = began_us > 0 and began_us or block_us
  end
  if changed then
    state.changed_us, change_us = change_us, change_us + 1
    write(subject, state)
  end
  told[i + 1] = {left_us, block_us, as_text(state)}
end
forget_old(k, now_us, ttl_us, tonumber(ARGV[4]), #notes + SPARE)
return told
