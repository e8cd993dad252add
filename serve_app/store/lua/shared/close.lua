-- Twin: serve_app/queueing/order/state.py. Needs line.lua. What a step leaves behind.
-- The rules of the classes; tickets of a class that is no longer there go by the last one's.
local function set_rules(k, text)
  local rules = cjson.decode(text)
  for class = 0, math.max(#rules, classes(k)) - 1 do
    local at, rule = of(class), rules[math.min(class + 1, #rules)]
    for place = 1, 4 do
      k.tally[at + place] = rule[place]
    end
    for place = 5, WIDTH do
      k.tally[at + place] = k.tally[at + place] or 0
    end
  end
end

-- Writes what the step has changed, in one call a kind.
local function closed(k)
  local flows, lent = {}, {}
  for name, flow in pairs(k.used) do
    flows[#flows + 1], flows[#flows + 2] = name, cmsgpack.pack(flow)
  end
  for replica, one in pairs(k.seats) do
    lent[#lent + 1], lent[#lent + 2] = replica, one[2]
  end
  if #flows > 0 then
    redis.call("HSET", k.flows, unpack(flows))
  end
  if #lent > 0 then
    redis.call("HSET", k.lent, unpack(lent))
  end
  redis.call("SET", k.counts, cmsgpack.pack(k.tally))
end
