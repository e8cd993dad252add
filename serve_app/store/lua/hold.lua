--[[
Say who a key is and take one request from its bucket; a refusal takes nothing. One atomic step.

KEYS[1]  record        hash of the key: sha256, attributes, expires_ms, rpm, burst
KEYS[2]  bucket        string: theoretical arrival time, us since epoch; expires by itself
ARGV[1]  sha256        of the secret shown; empty if the gateway itself vouches for the caller
ARGV[2]  default_rpm   requests a minute if the record names none (>= 0; 0 is never)
ARGV[3]  cost          requests to take; 0 only looks

Returns  {known 0|1, attributes, allowed 0|1, remaining, retry_after_us, reset_after_us,
          limit_rpm, interval_us, now_us}
         retry_after_us: 0 if allowed, -1 if it never comes back
Clock    the store's TIME
Twin     serve_app/limits/gcra.py
]]
--@include gcra
local now_us = server_time_us()
local record = redis.call("HMGET", KEYS[1], "sha256", "attributes", "expires_ms", "rpm", "burst")
local expires_ms = tonumber(record[3] or 0)

if ARGV[1] ~= "" then
  local expired = expires_ms > 0 and expires_ms * 1000 <= now_us
  if not record[1] or record[1] ~= ARGV[1] or expired then
    return {0, "", 0, 0, 0, 0, 0, 0, now_us}
  end
end

local rpm = tonumber(record[4] or ARGV[2])
local burst = tonumber(record[5] or rpm)
local cost = tonumber(ARGV[3])
local attributes = record[2] or ""
if rpm == 0 then
  local allowed = cost == 0 and 1 or 0
  return {1, attributes, allowed, 0, allowed - 1, 0, 0, 0, now_us}
end
local interval_us = math.ceil(60000000 / rpm)
local allowed, remaining, retry_us, reset_us = take(KEYS[2], interval_us, burst, cost, now_us)
return {1, attributes, allowed, remaining, retry_us, reset_us, rpm, interval_us, now_us}
