--[[
Write down what a request used, or give its place in the bucket back; once. One atomic step.

KEYS[1]  mark          string: this request was settled
KEYS[2]  usage         hash of one key and hour: <model>:<what> counters
KEYS[3]  bucket        string: theoretical arrival time, us since epoch
ARGV[1]  model         name in the usage fields
ARGV[2]  requests      1 if it counts, 0 if it is given back
ARGV[3]  input         prompt tokens (>= 0)
ARGV[4]  output        generated tokens (>= 0)
ARGV[5]  interval_us   us that one request takes to come back; 0 if nothing was taken
ARGV[6]  mark_ttl_s    seconds the mark is kept
ARGV[7]  usage_ttl_s   seconds the usage is kept
ARGV[8]  taken_tat_us  what the take left in the bucket, us since epoch

Returns  1 if settled now, 0 if it was settled before
Clock    the store's TIME
Twin     serve_app/limits/gcra.py
]]
--@include gcra
if not redis.call("SET", KEYS[1], 1, "NX", "EX", ARGV[6]) then
  return 0
end
if tonumber(ARGV[2]) == 0 then
  local interval_us = tonumber(ARGV[5])
  if interval_us > 0 then
    give_back(KEYS[3], interval_us, tonumber(ARGV[8]), server_time_us())
  end
  return 1
end
redis.call("HINCRBY", KEYS[2], ARGV[1] .. ":requests", ARGV[2])
redis.call("HINCRBY", KEYS[2], ARGV[1] .. ":input_tokens", ARGV[3])
redis.call("HINCRBY", KEYS[2], ARGV[1] .. ":output_tokens", ARGV[4])
redis.call("EXPIRE", KEYS[2], ARGV[7])
return 1
