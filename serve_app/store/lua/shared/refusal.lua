-- Twin: serve_app/queueing/promises.py. Needs promises.lua.
-- What a newcomer is told that may not wait: said, wait, when to come again; nil if it may.
local function refusal(k, ticket)
  local name, caller_name = names_of(ticket)
  read(k, name, caller_name)
  local at, caller, class = of(ticket.class), k.used[caller_name], ticket.class
  local mine = caller and not ticket.first_try and select(2, promises_to(k, caller))
  local kept = mine and 0 or math.min(due(k, class), math.floor(k.tally[at + MAX_TICKETS] / 2))
  local wait, patience = wait_ms(k, class, k.used[name], kept), ticket.deadline_us / 1000 - k.now_ms
  local full = k.tally[at + TICKETS] + kept >= k.tally[at + MAX_TICKETS]
    or k.tally[at + BYTES] + ticket.bytes > k.tally[at + MAX_BYTES]
  if not full and wait <= patience then
    if caller then fulfil(k, ticket, caller) end
    return nil
  end
  local after = math.max(behind(k.tally[at + KEPT], left_per_ms(k, class)), wait - patience)
  if after > 0 and after <= RETRY_MAX_MS then
    promise(k, ticket, after)
  end
  return wait > patience and "late" or "full", wait, after
end
