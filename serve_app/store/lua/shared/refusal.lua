-- Twin: serve_app/queueing/promises.py. Needs promises.lua.
-- What a newcomer is told that may not wait: said, wait, when to come again; nil if it may.
local function refusal(k, ticket)
  local name, caller_name = names_of(ticket)
  local tally, rule = k.tally.each[ticket.class + 1], k.tally.rules[ticket.class + 1]
  local caller = flow_of(k, caller_name)
  local mine = caller and not ticket.first_try and select(2, promises_to(k, caller))
  local kept = mine and 0 or due(k, ticket.class)
  local wait = wait_ms(k, ticket.class, flow_of(k, name), kept)
  local patience = ticket.deadline_us / 1000 - k.now_ms
  local full = tally.waiting + kept >= rule[3] or tally.bytes + ticket.bytes > rule[4]
  if not full and wait <= patience then
    if caller then fulfil(k, ticket, caller) end
    return nil
  end
  local low, high = promised(k, ticket.class, 0, BY_CLASS - 1)
  local ahead = redis.call("ZCOUNT", k.promised, low, high)
  local after = math.max(behind(ahead, left_per_ms(k, ticket.class)), wait - patience)
  if after > 0 and after <= RETRY_MAX_MS then
    promise(k, ticket, after)
  end
  return wait > patience and "late" or "full", wait, after
end
