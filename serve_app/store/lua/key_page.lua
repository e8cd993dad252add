--[[
Return a page of a tenant's key ids, oldest first. One atomic step.

KEYS[1]  index         zset of the tenant's key ids by time made, us
ARGV[1]  after_us      time made of the last one seen; 0 for the first page
ARGV[2]  size          ids at most (1 to 1000)

Returns  {id, made_us, id, made_us, ...}
Clock    none
Twin     none: nothing is decided here
]]
return redis.call("ZRANGE", KEYS[1], "(" .. ARGV[1], "+inf", "BYSCORE", "LIMIT", 0, ARGV[2],
                  "WITHSCORES")
