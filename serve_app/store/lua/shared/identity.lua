-- Twin: none: it reads who a record says that somebody is.
local NOTED_MS = 60000 -- the last use of a key or user is written down at most this often

-- Returns state, attributes, limits of what `k.record` and `k.mark` say, and whether to note its use.
local function known(k, kind, proof, now_ms)
  if kind ~= "key" and redis.call("EXISTS", k.mark) == 1 then
    return "revoked"
  elseif kind == "vouched" then
    return "known", ""
  end
  local is = redis.call("HMGET", k.record, "attributes", "sha256", "old_sha256", "old_until_ms",
                        "expires_ms", "limits", "disabled", "not_before_ms", "used_ms")
  if kind == "key" then
    local old = is[3] == proof and now_ms < tonumber(is[4] or 0)
    local expires_ms = tonumber(is[5] or 0)
    if not (is[2] == proof or old) or (expires_ms > 0 and expires_ms <= now_ms) then
      return "unknown"
    end
  elseif not is[1] or is[7] == "1" or (tonumber(proof) or -1) < tonumber(is[8] or 0) then
    return "revoked"
  end
  return "known", is[1], is[6], now_ms - tonumber(is[9] or 0) >= NOTED_MS
end

-- Writes down when the caller was here, if it is time to.
local function note_use(k, now_us)
  if k.is_due then
    redis.call("HSET", k.record, "used_ms", math.floor(now_us / 1000))
  end
end

-- State, attributes and limits, and attributes and limits of the tenant. Nothing is written.
local function identify(k, kind, proof, now_us)
  local state, attributes, limits, is_due = known(k, kind, proof, math.floor(now_us / 1000))
  k.is_due = is_due
  local tenant = redis.call("HMGET", k.tenant, "attributes", "limits")
  if state == "known" and k.must_exist and not tenant[1] then
    state = "no_tenant"
  end
  return state, attributes, limits or nil, tenant[1] or "", tenant[2] or ""
end
