-- Twin: serve_app/limits/gcra.py (is_tighter). `k` names the record, the tenant and the mark.
local NOTED_MS = 60000 -- the last use of a key or user is written down at most this often

-- Returns limit and burst of the term `r` in a caller's own line of limits.
local function own_rate(limits)
  local line = " " .. (string.match(limits or "", "^[^\n]*") or "")
  return string.match(line, " r (%d+) (%d+) 0")
end

-- Returns state, attributes, rpm, burst of a caller; notes when it was here.
local function identify(k, kind, proof, now_ms)
  if kind ~= "key" and redis.call("EXISTS", k.mark) == 1 then
    return "revoked"
  elseif kind == "vouched" then
    return "known", ""
  end
  local is = redis.call("HMGET", k.record, "attributes", "sha256", "old_sha256", "old_until_ms",
                        "expires_ms", "limits", "disabled", "not_before_ms", "used_ms")
  if kind == "key" then
    local old = is[3] == proof and now_ms < tonumber(is[4])
    local expires_ms = tonumber(is[5] or 0)
    if not (is[2] == proof or old) or (expires_ms > 0 and expires_ms <= now_ms) then
      return "unknown"
    end
  elseif not is[1] or is[7] == "1" or tonumber(proof) < tonumber(is[8] or 0) then
    return "revoked"
  end
  if now_ms - tonumber(is[9] or 0) >= NOTED_MS then
    redis.call("HSET", k.record, "used_ms", now_ms)
  end
  return "known", is[1], own_rate(is[6])
end

-- Of two buckets that refuse, the one that refuses longer; of two that allow, the emptier one.
local function is_tighter(one, other)
  if one.allowed ~= other.allowed then
    return not one.allowed
  elseif one.allowed then
    return one.left < other.left
  end
  return other.wait_us ~= -1 and (one.wait_us == -1 or one.wait_us > other.wait_us)
end
