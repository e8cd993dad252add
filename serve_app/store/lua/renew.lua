--[[
Hold on to what a request holds that still runs; what is over stays so. One atomic step.

KEYS[1]  leases        zset of the caller: what its requests hold, until ms
KEYS[2]  leases_model  the same, of the model
KEYS[3]  tenant_leases the same of its tenant
KEYS[4]  tenant_model  the same, of the model
ARGV[1]  ttl_ms        until the leases are given back, unless they are renewed
ARGV[2]  lease         of leases, as hold.lua wrote it; "" if there is none
ARGV[3]  lease         of leases_model
ARGV[4]  lease         of tenant_leases
ARGV[5]  lease         of tenant_model

Returns  {how many were still there, now_us}
Clock    the store's TIME
Twin     serve_app/limits/step.py
]]
--@include gcra
local ttl_ms, found = whole(ARGV[1]), {}
if not ttl_ms then
  return redis.error_reply("ERR renew: ttl_ms is a whole number")
end
local now_us, names = server_time_us(), {KEYS[1], KEYS[2], KEYS[3], KEYS[4]}
local now_ms = math.floor(now_us / 1000)
for at, lease in ipairs({ARGV[2], ARGV[3], ARGV[4], ARGV[5]}) do
  local k = {leases = names[at], lease = lease}
  local until_ms = lease ~= "" and redis.call("ZSCORE", k.leases, lease)
  if until_ms and tonumber(until_ms) > now_ms then
    found[#found + 1] = k
  end
end
for _, k in ipairs(found) do
  redis.call("ZADD", k.leases, "XX", now_ms + ttl_ms, k.lease)
  redis.call("PEXPIRE", k.leases, kept_ms(math.max(ttl_ms, redis.call("PTTL", k.leases)) * 1000))
end
return {#found, now_us}
