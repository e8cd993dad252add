--[[
Give a key a new secret; the old one stays good for a while. One atomic step; sent again, it
answers alike.

KEYS[1]  record        hash of the key: sha256, old_sha256, old_until_ms
ARGV[1]  sha256        of the new secret, hex
ARGV[2]  overlap_ms    how long the old secret stays good (>= 0); one older than that ends now

Returns  when the old secret ends, ms since epoch; -1 if the key is gone
Clock    the store's TIME
Twin     none: nothing is decided here
]]
local old = redis.call("HGET", KEYS[1], "sha256")
if not old then
  return -1
end
if old == ARGV[1] then
  return tonumber(redis.call("HGET", KEYS[1], "old_until_ms") or 0)
end
local time = redis.call("TIME")
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
redis.call("HSET", KEYS[1], "sha256", ARGV[1], "old_sha256", old, "old_until_ms", until_ms)
return until_ms
