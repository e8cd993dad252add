--[[
Seat a request at once, or give it a place in line, or turn it away. One atomic step.

KEYS[1]  replicas      hash: replica -> how to reach it
KEYS[2]  capacity      hash: replica -> seats it offers
KEYS[3]  room          zset: replica -> seats free
KEYS[4]  beats         zset: r:replica and g:channel -> last sign of life, ms
KEYS[5]  line          zset: waiting ticket -> arrival, us
KEYS[6]  seats         hash: seated ticket -> replica
KEYS[7]  drain         hash: rate (1/s), at_ms
ARGV[1]  ticket        <wake channel>/<number>; sent twice, it enters once
ARGV[2]  max_tickets   that may wait at once (>= 0); binds those that come for the first time
ARGV[3]  arrived_us    when it first came, us; 0 for now
ARGV[4]  avoid         replica that just failed this request; empty for none

Returns  {"seated", replica, info, arrived_us}
         {"waiting", waiting, replicas, arrived_us, rate}   rate: seats freed a second, as text
         {"full", waiting, replicas, arrived_us, rate}      the line is as it was
Clock    the store's TIME
Twin     serve_app/queueing/order.py
]]
--@include line
--@include seats
--@include reap
local k = named({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]})
local ticket, max_tickets = ARGV[1], tonumber(ARGV[2])
local now_us, now_ms = now_us_ms()
local arrived_us = tonumber(ARGV[3]) > 0 and tonumber(ARGV[3]) or now_us
local channel = channel_of(ticket)
redis.call("ZADD", k.beats, now_ms, "g:" .. channel)
reap(k, now_ms)

local function seated(replica)
  return {"seated", replica, redis.call("HGET", k.replicas, replica), arrived_us}
end

local mine = redis.call("HGET", k.seats, ticket)
if mine then
  return seated(mine)
end
local waiting = redis.call("ZCARD", k.line)
local replica = waiting == 0 and roomiest(k, ARGV[4])
if replica then
  sit(k, ticket, replica)
  return seated(replica)
end
local said = "waiting"
local again = tonumber(ARGV[3]) > 0 or redis.call("ZSCORE", k.line, ticket)
if waiting >= max_tickets and not again then
  said = "full"
else
  redis.call("ZADD", k.line, "NX", string.format("%.0f", arrived_us), ticket)
  seat_next(k)
  mine = redis.call("HGET", k.seats, ticket)
  if mine then
    return seated(mine)
  end
  waiting = redis.call("ZCARD", k.line)
end
local rate = string.format("%.6f", drain_rate(k, now_ms, 0))
return {said, waiting, redis.call("HLEN", k.replicas), arrived_us, rate}
