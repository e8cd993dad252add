-- Twin: serve_app/limits/demand.py. `d` is what a request asks for; `scopes` are its four.
local function demand_of(text)
  local d, places = {}, {"requests", "text_bytes", "fixed", "choices", "cap", "output_cap",
                         "nanos_in", "nanos_out"}
  for word in string.gmatch(text, "%S+") do
    local place, number = table.remove(places, 1), tonumber(word)
    local kind = #places < 2 and "^%d[%d.e+-]*$" or #places < 4 and "^%-?%d+$" or "^%d+$"
    if not place or not number or not string.find(word, kind) or number < -1 or number > MOST then
      return nil
    end
    d[place] = number
  end
  return #places == 0 and d.requests <= 1 and d
end

-- What a request counts as, by unit, if each of its replies has `out` tokens.
local function counted(d, out)
  local outputs = d.choices * out
  return {requests = d.requests, seats = d.requests, input = d.input, output = outputs,
          tokens = d.input + outputs,
          cost = math.ceil(d.input * d.nanos_in + outputs * d.nanos_out)}
end

-- The output tokens per reply for which a full bound has room.
local function room_for(bound, d)
  local full = bound.burst
  if bound.unit == "output" then
    return math.floor(full / d.choices)
  elseif bound.unit == "tokens" then
    return math.floor((full - d.input) / d.choices)
  elseif bound.unit == "cost" and d.nanos_out > 0 then
    return math.floor((full - math.ceil(d.input * d.nanos_in)) / (d.choices * d.nanos_out))
  end
  return math.huge
end

-- Output tokens expected of each reply, and the cap that the gate must set so that it is so, or -1.
local function expected_output(scopes, d, learned)
  if d.choices == 0 or d.cap >= 0 then
    return math.max(d.cap, 0), -1
  end
  local cap = scopes[2].output_cap or scopes[1].output_cap or scopes[4].output_cap
              or scopes[3].output_cap or (d.output_cap >= 0 and d.output_cap or nil)
  local out, told = cap or learned, cap or -1
  for _, k in ipairs(scopes) do
    for _, bound in ipairs(k.bounds) do
      local room = bound.shadow and math.huge or math.max(room_for(bound, d), 1)
      if room < out then
        out, told = room, room
      end
    end
  end
  return out, told
end
