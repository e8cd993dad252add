--[[
Write a tenant's record: a new one, or a change that nobody else has overtaken. One atomic step;
sent again, it answers alike.

KEYS[1]  record        hash of the tenant: attributes, limits
ARGV[1]  was           the attributes that the change was made from; empty for a new tenant
ARGV[2]  attributes    JSON, opaque here
ARGV[3]  limits        of the whole tenant, as the hold reads them; empty for none

Returns  1 if written, 0 if the attributes are others by now, or the tenant is there already
Clock    none
Twin     none: nothing is decided here
]]
local is = redis.call("HGET", KEYS[1], "attributes") or ""
if is == ARGV[2] then
  return 1
elseif is ~= ARGV[1] then
  return 0
end
redis.call("HSET", KEYS[1], "attributes", ARGV[2])
if ARGV[3] ~= "" then
  redis.call("HSET", KEYS[1], "limits", ARGV[3])
else
  redis.call("HDEL", KEYS[1], "limits")
end
return 1
