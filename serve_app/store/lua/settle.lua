--[[
Charge what a request used to every bound that held for it, give back the rest, and write it down;
once. A lease that was given back meanwhile is charged anew. One atomic step.

KEYS[1]  mark          string: this request was settled
KEYS[2]  usage         hash of one caller and hour
KEYS[3]  used          set of the callers of a tenant that used something in that hour
KEYS[4]  learned       hash: what was learned of the tenant's requests to this model
KEYS[5]  key           string, as in hold.lua;           KEYS[6]  its leases
KEYS[7]  key_model     string;                           KEYS[8]  leases
KEYS[9]  tenant_all    string;                           KEYS[10] leases
KEYS[11] tenant_model  string;                           KEYS[12] leases
ARGV[1]  key_id        the caller
ARGV[2]  model
ARGV[3]  class         it was served in
ARGV[4]  counts        "<requests 0|1> <input> <output> <cached> <cost in nanos> <queue ms> <engine ms>";
                       0 requests is a hold given back, with nothing to charge
ARGV[5]  sample        "<text bytes> <tokens of that text> <output tokens per reply>", or "" to learn
                       nothing
ARGV[6]  mark_ttl_s    seconds the mark is kept
ARGV[7]  lease         of the scope key, as hold.lua wrote it; "" if there is none
ARGV[8]  lease         of key_model
ARGV[9]  lease         of tenant_all
ARGV[10] lease         of tenant_model

Returns  {1 if settled now or 0 if it was settled before, now_us}
Clock    the store's TIME
Twin     serve_app/limits/step.py
]]
--@include gcra
--@include window
--@include bound
--@include scope
--@include lease
--@include settling
--@include settle_scope
--@include ledger
--@include learning
local counts, sample, mark_ttl_s = numbers(ARGV[4]), numbers(ARGV[5]), whole(ARGV[6])
local scopes = {{state = KEYS[5], leases = KEYS[6], text = ARGV[7]},
                {state = KEYS[7], leases = KEYS[8], text = ARGV[8]},
                {state = KEYS[9], leases = KEYS[10], text = ARGV[9]},
                {state = KEYS[11], leases = KEYS[12], text = ARGV[10]}}
local is_sound = leases_of(scopes) and #counts == 7 and math.min(unpack(counts)) >= 0 and mark_ttl_s
                 and (#sample == 3 or ARGV[5] == "")
if not is_sound then
  return redis.error_reply("ERR settle: counts, sample and mark_ttl_s are numbers, leases as written")
end
local now_us = server_time_us()
if redis.call("GET", KEYS[1]) then
  return {0, now_us}
end
read_all(scopes, {usage = KEYS[2], used = KEYS[3], learned = KEYS[4]}, now_us)
redis.call("SET", KEYS[1], 1, "EX", ARGV[6])
local tokens = counts[2] + counts[3]
local used = {r = counts[1], R = counts[1], i = counts[2], I = counts[2], o = counts[3], O = counts[3],
              t = tokens, T = tokens, M = tokens, D = counts[5], E = counts[5]}
for _, k in ipairs(scopes) do
  settle_scope(k, used, now_us)
end
if counts[1] > 0 then
  write_down({usage = KEYS[2], used = KEYS[3]}, ARGV[1], ARGV[2], ARGV[3],
             {requests = counts[1], input_tokens = counts[2], output_tokens = counts[3],
              cached_tokens = counts[4], cost_nanos = counts[5], queue_ms = counts[6],
              engine_ms = counts[7]})
end
if #sample == 3 then
  learn({learned = KEYS[4]}, sample[1], sample[2], sample[3])
end
return {1, now_us}
