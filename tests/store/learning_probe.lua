--@include learning
local k = {learned = KEYS[1]}
if ARGV[1] then
  learn(k, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
end
local bytes_per_token, p95 = expected(k)
return {string.format("%.17g", bytes_per_token), string.format("%.0f", p95)}
