--[[
Write something that goes by itself: whether this server runs scripts and takes writes. One atomic
step.

KEYS[1]  probe         string
ARGV[1]  ttl_ms        ms it is kept (>= 1)

Returns  1
Clock    none
Twin     none: nothing is decided here
]]
redis.call("SET", KEYS[1], 1, "PX", ARGV[1])
return 1
