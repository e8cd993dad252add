local store, now_us = redis, tonumber(table.remove(ARGV))
local function now_ms()
  return math.floor(now_us / 1000)
end
local moved = {
  TIME = function()
    return {string.format("%.0f", math.floor(now_us / 1000000)), string.format("%.0f", now_us % 1000000)}
  end,
  PEXPIRE = function(key, ms, condition)
    local was, ends = store.call("ZSCORE", "ends", key), now_ms() + ms
    if (condition == "NX" and was) or (condition == "GT" and not (was and ends > tonumber(was))) then
      return 0
    end
    store.call("ZADD", "ends", string.format("%.0f", ends), key)
    return 1
  end,
  SET = function(key, value, how, number)
    if how == "PX" then
      store.call("ZADD", "ends", string.format("%.0f", now_ms() + number), key)
    end
    return store.call("SET", key, value)
  end,
  PTTL = function(key)
    return (store.call("ZSCORE", "ends", key) or now_ms() - 2) - now_ms()
  end,
}
local redis = {
  error_reply = store.error_reply,
  call = function(command, ...)
    return (moved[command] or function(...) return store.call(command, ...) end)(...)
  end,
}
