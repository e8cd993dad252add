-- Twin: serve_app/queueing/order/promises.py. Needs promises.lua.
-- What a newcomer is told that may not wait: said, wait, when to come again; nil if it may.
local function refusal(k, ticket)
  local name, caller_name = names_of(ticket)
  read(k, name, caller_name)
  forget_stale(k, ticket.class)
  local at, caller, class = of(ticket.class), k.used[caller_name], ticket.class
  local mine = caller and not ticket.first_try and select(2, promises_to(k, caller))
  -- seats may come free in one burst: for all who come within the time of one seat
  local soon_ms = math.floor(lately(k, LENT_MS) / math.max(lately(k, ENDED), 1))
  local kept = mine and 0 or math.min(kept_until(k, class, k.now_ms + soon_ms),
                                      math.floor(k.tally[at + MAX_TICKETS] / 2))
  local wait, patience = wait_ms(k, class, k.used[name], kept), ticket.deadline_us / 1000 - k.now_ms
  local full = k.tally[at + TICKETS] + kept >= k.tally[at + MAX_TICKETS]
    or k.tally[at + BYTES] + ticket.bytes > k.tally[at + MAX_BYTES]
  if not full and wait <= patience then
    if caller then fulfil(k, ticket, caller) end
    return nil
  end
  local after = math.max(behind(kept_until(k, class, BY_CLASS - 1), left_per_ms(k, class)), wait - patience)
  if after > 0 and after <= RETRY_MAX_MS then
    promise(k, ticket, after)
  end
  return wait > patience and "late" or "full", wait, after
end
