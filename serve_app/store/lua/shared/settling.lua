-- Twin: serve_app/limits/scope.py. Needs scope.lua.
-- The numbers in `text`, or nothing if one is none, or too large to be exact.
local function numbers(text)
  local found = {}
  for word in string.gmatch(text, "%S+") do
    local number = string.find(word, "^%-?%d[%d.e+-]*$") and tonumber(word)
    if not number or number < -1 or number > MOST then
      return {}
    end
    found[#found + 1] = number
  end
  return found
end

-- Finds the lease of each scope in its text; returns whether each text is one, or empty.
local function leases_of(scopes)
  local is_sound = true
  for _, k in ipairs(scopes) do
    k.lease = lease_of(k.text)
    is_sound = is_sound and (k.lease or k.text == "")
  end
  return is_sound
end

-- Reads whatever will be written: what is of a wrong type fails here, before anything is.
local function read_all(scopes, k, now_us)
  for _, k in ipairs(scopes) do
    if k.lease then
      read_state(k, now_us)
      k.ends_ms = tonumber(redis.call("ZSCORE", k.leases, k.text) or nil)
    end
  end
  redis.call("HLEN", k.usage)
  redis.call("SCARD", k.used)
  redis.call("HLEN", k.learned)
end

-- Where the value of `term` is in the state, made if it is not there, and how long it matters at
-- least, us; nil if its window is over.
local function place_of(k, term, now_us)
  local at, number, for_us = place_in(k.is, term.field), 0, 0
  if term.period ~= "minute" then
    local ends_us
    number, ends_us = window_of(term.period, now_us)
    for_us = ends_us - now_us
    if number ~= term.mark then
      return nil
    end
  end
  if not at and term.period == "minute" then
    at = put(k.is, term.field, 0, 0, 1, now_us, term.limit)
  elseif not at then
    at = put(k.is, term.field, 0, number, 0, 0, 0)
  elseif number > 0 and k.is[at + 2] ~= number then
    k.is[at + 1], k.is[at + 2] = 0, number
  end
  return at, for_us
end
