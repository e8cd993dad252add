local function expected(k)
  local is = redis.call("HMGET", k.learned, "bytes_per_token", "p95")
  return tonumber(is[1] or 4), tonumber(is[2] or 256)
end
local function learn(k, text_bytes, text_tokens, outputs)
end
