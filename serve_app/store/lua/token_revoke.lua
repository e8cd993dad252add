--[[
Mark a token as revoked; a second mark may lengthen the first, never shorten it. One atomic step.

KEYS[1]  mark          string: this token was revoked
ARGV[1]  ttl_s         seconds the mark is kept (>= 1)

Returns  1
Clock    none
Twin     none: nothing is decided here
]]
if redis.call("TTL", KEYS[1]) < tonumber(ARGV[1]) then
  redis.call("SET", KEYS[1], 1, "EX", ARGV[1])
end
return 1
