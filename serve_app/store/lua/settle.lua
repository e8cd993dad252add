--[[
Write down what a request used, or give its place in the buckets back; once. One atomic step.

KEYS[1]  mark          string: this request was settled
KEYS[2]  usage         hash of one caller and hour: <model>:<what> counters
KEYS[3]  bucket        string: the caller's theoretical arrival time, us since epoch
KEYS[4]  tenant_bucket string: the same of its tenant
ARGV[1]  model         name in the usage fields
ARGV[2]  requests      1 if it counts, 0 if it is given back
ARGV[3]  input         prompt tokens (>= 0)
ARGV[4]  output        generated tokens (>= 0)
ARGV[5]  mark_ttl_s    seconds the mark is kept
ARGV[6]  usage_ttl_s   seconds the usage is kept
ARGV[7]  interval_us   us that one request takes to come back; 0 if nothing was taken
ARGV[8]  tat_us        what the take left in the bucket, us since epoch
ARGV[9]  tenant_interval_us   as interval_us
ARGV[10] tenant_tat_us        as tat_us

Returns  1 if settled now, 0 if it was settled before
Clock    the store's TIME
Twin     serve_app/limits/gcra.py
]]
--@include gcra
if not redis.call("SET", KEYS[1], 1, "NX", "EX", ARGV[5]) then
  return 0
end
if tonumber(ARGV[2]) == 0 then
  local now_us = server_time_us()
  give_back(KEYS[3], tonumber(ARGV[7]), tonumber(ARGV[8]), now_us)
  give_back(KEYS[4], tonumber(ARGV[9]), tonumber(ARGV[10]), now_us)
  return 1
end
redis.call("HINCRBY", KEYS[2], ARGV[1] .. ":requests", ARGV[2])
redis.call("HINCRBY", KEYS[2], ARGV[1] .. ":input_tokens", ARGV[3])
redis.call("HINCRBY", KEYS[2], ARGV[1] .. ":output_tokens", ARGV[4])
redis.call("EXPIRE", KEYS[2], ARGV[6])
return 1
