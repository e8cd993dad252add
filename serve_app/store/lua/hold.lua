--[[
Say who a caller is and take one request from its bucket and its tenant's, from both or neither;
a refusal takes nothing. One atomic step.

KEYS[1]  record        hash of the key or user; need not be there for a caller that is vouched for
KEYS[2]  tenant        hash of its tenant: attributes, limits
KEYS[3]  mark          string: this token was revoked
KEYS[4]  bucket        string: the caller's theoretical arrival time, us since epoch
KEYS[5]  tenant_bucket string: the same of its tenant
ARGV[1]  kind          "key", "user" (a session of ours) or "vouched" (the gateway knows the caller)
ARGV[2]  proof         SHA-256 of the secret shown, or when the session was issued, ms; else ""
ARGV[3]  default_rpm   requests a minute if the record names none (>= 0; 0 is never)
ARGV[4]  cost          requests to take; 0 only looks
ARGV[5]  must_exist    1 if the tenant's record must be there

Returns  {state, attributes, tenant_attributes, allowed 0|1, scope, left, wait_us, reset_us, rpm,
          now_us, interval_us, tat_us, tenant_interval_us, tenant_tat_us}
         state: "known", "unknown", "revoked" or "no_tenant"; scope: "key" or "tenant", the tighter
         wait_us: 0 if allowed, -1 if it never comes back
Clock    the store's TIME
Twin     serve_app/limits/gcra.py
]]
--@include gcra
--@include identity
local now_us = server_time_us()
local kind, cost = ARGV[1], tonumber(ARGV[4])
local k = {record = KEYS[1], tenant = KEYS[2], mark = KEYS[3]}
local state, attributes, rpm, burst = identify(k, kind, ARGV[2], math.floor(now_us / 1000))
local tenant = redis.call("HMGET", k.tenant, "attributes", "limits")
if state == "known" and ARGV[5] == "1" and not tenant[1] then
  state = "no_tenant"
end
if state ~= "known" then
  return {state, "", "", 0, "", 0, 0, 0, 0, now_us, 0, 0, 0, 0}
end

rpm = tonumber(rpm or ARGV[3])
local own = look(KEYS[4], rpm, tonumber(burst or rpm), cost, now_us)
local theirs = {allowed = true, interval_us = 0, tat_us = 0}
local tighter, scope = own, "key"
local tenant_rpm, tenant_burst = own_rate(tenant[2])
if tenant_rpm then
  theirs = look(KEYS[5], tonumber(tenant_rpm), tonumber(tenant_burst), cost, now_us)
  if is_tighter(theirs, own) then
    tighter, scope = theirs, "tenant"
  end
end
local allowed = own.allowed and theirs.allowed
if allowed and cost > 0 then
  take(KEYS[4], own, now_us)
  take(KEYS[5], theirs, now_us)
end
return {state, attributes, tenant[1] or "", allowed and 1 or 0, scope, tighter.left, tighter.wait_us,
        tighter.reset_us, tighter.rpm, now_us, own.interval_us, own.tat_us, theirs.interval_us,
        theirs.tat_us}
