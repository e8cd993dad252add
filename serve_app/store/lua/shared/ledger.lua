-- `k.usage` is the hash of one caller and hour, `k.used` the set of ids with use in that hour.
local LEDGER_TTL_S = 8640000 -- 100 days

-- Adds `counts` (what -> number, a zero counts nothing) to one model and class of a caller's hour;
-- returns whether there was anything to add.
local function write_down(k, key_id, model, class, counts)
  local head = model .. "\t" .. class .. "\t"
  local written = false
  for what, count in pairs(counts) do
    count = tonumber(count)
    if count ~= 0 then
      redis.call("HINCRBY", k.usage, head .. what, string.format("%.0f", count))
      written = true
    end
  end
  if written then
    redis.call("EXPIRE", k.usage, LEDGER_TTL_S)
    redis.call("SADD", k.used, key_id)
    redis.call("EXPIRE", k.used, LEDGER_TTL_S)
  end
  return written
end
