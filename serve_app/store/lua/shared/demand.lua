-- Twin: serve_app/limits/demand.py. `d` is what a request asks for; `scopes` are its four.
local function demand_of(text)
  local requests, bytes, fixed, choices, cap, own, nanos_in, nanos_out =
    string.match(text, "^([01]) (%d+) (%d+) (%d+) (%-?%d+) (%-?%d+) (%d[%d.e+-]*) (%d[%d.e+-]*)$")
  local d = requests and {
    requests = tonumber(requests), text_bytes = whole(bytes), fixed = whole(fixed),
    choices = whole(choices), cap = tonumber(cap), output_cap = tonumber(own),
    nanos_in = tonumber(nanos_in), nanos_out = tonumber(nanos_out), input = 0, least = 0}
  if d and d.text_bytes and d.fixed and d.choices and d.nanos_in and d.nanos_in <= MOST
     and d.nanos_out and d.nanos_out <= MOST and d.cap >= -1 and d.cap <= MOST
     and d.output_cap >= -1 and d.output_cap <= MOST then
    return d
  end
end

-- What a request counts as, by the letter of a bound, if its prompt has `input` tokens and each of its
-- replies `out`.
local function counted(d, input, out)
  local requests, outputs = d.requests, d.choices * out
  local tokens, cost = input + outputs, math.ceil(input * d.nanos_in + outputs * d.nanos_out)
  return {r = requests, R = requests, c = requests, i = input, I = input, o = outputs, O = outputs,
          t = tokens, T = tokens, M = tokens, D = cost, E = cost}
end

-- The output tokens per reply for which a full bound has room beside the prompt.
local function room_for(bound, d)
  local full, letter, input = bound.burst, bound.letter, d.input
  if (letter == "D" or letter == "E") and input * d.nanos_in > full or input > full then
    input = d.least -- it may be shorter than it looks
  end
  if letter == "o" or letter == "O" then
    return math.floor(full / d.choices)
  elseif letter == "t" or letter == "T" or letter == "M" then
    return math.floor((full - input) / d.choices)
  elseif (letter == "D" or letter == "E") and d.nanos_out > 0 then
    return math.floor((full - math.ceil(input * d.nanos_in)) / (d.choices * d.nanos_out))
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
