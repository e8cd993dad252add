--[[
Revoke a key: its record goes, so its next request is refused. One atomic step.

KEYS[1]  record        hash of the key
KEYS[2]  index         zset of the tenant's key ids
ARGV[1]  key_id

Returns  1 if it was there, 0 if not
Clock    none
Twin     none: nothing is decided here
]]
redis.call("ZREM", KEYS[2], ARGV[1])
return redis.call("DEL", KEYS[1])
