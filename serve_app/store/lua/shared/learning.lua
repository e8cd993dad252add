-- Twin: serve_app/limits/learning.py. `k.learned` is the hash of one tenant and model.
local PACE, FULL_BYTES, LEARNED_TTL_S = 0.1, 1024, 2592000
local REPLIES_MIN, REPLIES_MAX, LAST_BUCKET, BYTES_PER_TOKEN_MAX = 20, 200, 39, 16

-- Bytes per token of a prompt, and the tokens that 95 of 100 replies do not exceed.
local function expected(k)
  local told = redis.call("HMGET", k.learned, "bytes_per_token", "p95")
  return tonumber(told[1] or 4), tonumber(told[2] or 256)
end

local function moved_ratio(bytes_per_token, text_bytes, text_tokens)
  if not (text_bytes > 0 and text_tokens > 0) then
    return bytes_per_token
  end
  local was = 1 / bytes_per_token
  local actual = math.min(math.max(text_tokens / text_bytes, was / 2), was * 2)
  local moved = was + PACE * math.min(1, text_bytes / FULL_BYTES) * (actual - was)
  return math.min(math.max(1 / moved, 0.25), BYTES_PER_TOKEN_MAX)
end

-- Tokens at most in a bucket, counted from 0: 1, 2, 3, 4, 6, 8 ...
local function edge_of(bucket)
  local octave = 2 ^ math.floor((bucket + 1) / 2)
  return (bucket > 0 and bucket % 2 == 0) and 1.5 * octave or octave
end

-- The histogram `text` with one more reply: counts from bucket 0 on, and their sum.
local function with_reply(text, output_tokens)
  local counts, total, bucket = {}, 0, 0
  for count in string.gmatch(text, "%d+") do
    counts[#counts + 1] = tonumber(count)
    total = total + counts[#counts]
  end
  if total >= REPLIES_MAX then
    total = 0
    for at, count in ipairs(counts) do
      counts[at] = math.floor(count / 2)
      total = total + counts[at]
    end
  end
  counts[1] = counts[1] or 0
  while bucket < LAST_BUCKET and output_tokens > edge_of(bucket) do
    bucket = bucket + 1
    counts[bucket + 1] = counts[bucket + 1] or 0
  end
  counts[bucket + 1] = counts[bucket + 1] + 1
  return counts, total + 1
end

-- Learns from a request that succeeded. `text_tokens`: its input tokens without the fixed ones;
-- `output_tokens`: of a reply, on average; less than 0 if none was generated.
local function learn(k, text_bytes, text_tokens, output_tokens)
  local was = redis.call("HMGET", k.learned, "bytes_per_token", "replies")
  local ratio = moved_ratio(tonumber(was[1] or 4), text_bytes, text_tokens)
  local told = {"bytes_per_token", string.format("%.17g", ratio)}
  if output_tokens >= 0 then
    local counts, total = with_reply(was[2] or "", output_tokens)
    local below, bucket = 0, -1
    while total >= REPLIES_MIN and below * 20 < total * 19 do
      bucket = bucket + 1
      below = below + counts[bucket + 1]
    end
    told[3], told[4] = "replies", table.concat(counts, ",")
    if bucket >= 0 then
      told[5], told[6] = "p95", string.format("%.0f", edge_of(bucket))
    end
  end
  redis.call("HSET", k.learned, unpack(told))
  redis.call("EXPIRE", k.learned, LEARNED_TTL_S)
end
