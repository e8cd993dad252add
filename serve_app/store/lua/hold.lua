--[[
Say who a caller is and take what its request may use from all limits of it and its tenant, or from
none; a refusal takes nothing, it only gives back what gateways that died still held. One atomic step.

KEYS[1]  record        hash of the key or user; need not be there for a caller that is vouched for
KEYS[2]  tenant        hash of its tenant: attributes, limits
KEYS[3]  mark          string: this token was revoked
KEYS[4]  learned       hash: what was learned of the tenant's requests to this model
KEYS[5]  key           string: what the caller has used;         KEYS[6]  zset: its leases, until ms
KEYS[7]  key_model     string: the same, of this model;          KEYS[8]  zset
KEYS[9]  tenant_all    string: what its whole tenant has used;   KEYS[10] zset
KEYS[11] tenant_model  string: the same, of this model;          KEYS[12] zset
ARGV[1]  kind          "key", "user" (a session of ours) or "vouched" (the gateway knows the caller)
ARGV[2]  proof         SHA-256 of the secret shown, or when the session was issued, ms; else ""
ARGV[3]  must_exist    1 if the tenant's record must be there
ARGV[4]  claimed       the caller's limits if no record names them, as serve_app/allowance.py writes
ARGV[5]  defaults      the limits of whoever has none of that kind, alike
ARGV[6]  model
ARGV[7]  request       names the lease
ARGV[8]  ttl_ms        until the lease is given back, unless it is renewed
ARGV[9]  demand        "<requests> <text bytes> <fixed tokens> <replies> <output cap or -1>
                       <the model's own cap or -1> <nanos per input token> <per output token>";
                       0 requests only look

Returns  {state, attributes, tenant_attributes, now_us, place, input, output, cap, leases, said}
         state: "known", "unknown", "revoked" or "no_tenant"
         place: of the bound in `said` that refuses, the one that refuses longest; 0 if none does
         input, output: tokens expected; cap: on each reply, to be set by the gate, or -1
         leases: one text for each scope, empty where nothing is bound
         said: for each bound a line, "<scope 1-4> <letter> <shadow 0|1> <limit> <burst> <left> <wait_us>
         <reset_us>"
         wait_us: 0 if it allows, -1 if it never will
Clock    the store's TIME
Twin     serve_app/limits/step.py
]]
--@include gcra
--@include window
--@include bound
--@include scope
--@include lease
--@include seats_left
--@include ask
--@include demand
--@include take
--@include identity
--@include learning
--@include judge
local d, ttl_ms = demand_of(ARGV[9]), whole(ARGV[8])
if not d or not ttl_ms or (d.requests > 0 and not string.find(ARGV[7], "^%S+$")) then
  return redis.error_reply("ERR hold: demand and ttl_ms are numbers, request is a name")
end
local now_us = server_time_us()
local who = {record = KEYS[1], mark = KEYS[3], tenant = KEYS[2], must_exist = ARGV[3] == "1"}
local state, attributes, limits, theirs, tenant_limits = identify(who, ARGV[1], ARGV[2], now_us)
if state ~= "known" then
  return {state, "", "", now_us, 0, 0, 0, -1, {}, ""}
end
local scopes = {scope(KEYS[5], KEYS[6]), scope(KEYS[7], KEYS[8]), scope(KEYS[9], KEYS[10]),
                scope(KEYS[11], KEYS[12])}
bind_all(scopes, limits or ARGV[4], ARGV[5], tenant_limits, ARGV[6])
local bytes_per_token, learned = expected({learned = KEYS[4]})
d.input = d.fixed + math.ceil(d.text_bytes / bytes_per_token)
d.least = d.fixed + math.ceil(d.text_bytes / BYTES_PER_TOKEN_MAX)
local out, cap = expected_output(scopes, d, learned)
local place, said, leases = judged(scopes, d, out, ARGV[7], now_us, ttl_ms) -- reads all, then writes
note_use(who, now_us)
return {state, attributes, theirs, now_us, place, d.input, math.min(d.choices * out, MOST), cap,
        leases, said}
