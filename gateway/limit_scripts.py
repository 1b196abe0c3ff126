"""The Lua that Redis runs for `limit_redis.py`. Text only. `limit_stores.py` says the same in Python.

KEYS: a key's book and its leases, in one hash slot. Redis's own clock counts, so replicas' clocks need not agree.

The book is a hash. `r0` to `r60` and `t0` to `t60` are two rings of one-second buckets (requests, tokens) with sums
`r` and `t` and the last seconds used `r_at` and `t_at`; `head` is the ring's newest second. `day` and `spent` are the
daily budget's. `epoch` tells a book from the one before a loss of data: nothing is given back to the wrong one.
The leases are a sorted set: each request under way, by when its lease ends (Unix ms).
"""

from __future__ import annotations

SERVER_TIME = "redis.call('TIME')"
"""Lua for {seconds, microseconds}. Tests put a clock of their own in its place."""

_OPEN = """
local SLOTS, DAY_S = 61, 86400
local book, leases = KEYS[1], KEYS[2]
local time = @TIME@
local second = tonumber(time[1])
local now_ms = second * 1000 + math.floor(tonumber(time[2]) / 1000)
local kept = redis.call('HMGET', book, 'head', 'day', 'spent', 'epoch', 'r', 'r_at', 't', 't_at')
local head = tonumber(kept[1]) or second
local epoch = kept[4] or (time[1] .. '.' .. time[2])
local total = {r = tonumber(kept[5]) or 0, t = tonumber(kept[7]) or 0}
local at = {r = tonumber(kept[6]) or 0, t = tonumber(kept[8]) or 0}

-- Turn the rings to this second. A clock that steps back a little stands still; one far off starts the rings anew.
local steps = second - head
if steps > SLOTS or steps < -SLOTS then
  head, steps = second - SLOTS, SLOTS
end
for old = head + 1, head + steps do
  for name, sum in pairs(total) do
    local amount = redis.call('HGET', book, name .. old % SLOTS)
    if amount then
      redis.call('HDEL', book, name .. old % SLOTS)
      total[name] = sum - amount
    end
  end
end
if steps > 0 then head = head + steps end
if head > second then now_ms = head * 1000 end

local today = math.floor(head / DAY_S)
local day, spent = tonumber(kept[2]), tonumber(kept[3]) or 0
if day ~= today then day, spent = today, 0 end

local function add(name, amount)
  redis.call('HINCRBY', book, name .. head % SLOTS, amount)
  total[name], at[name] = total[name] + amount, head
end

local function save()
  redis.call('HSET', book, 'head', head, 'day', day, 'spent', spent, 'epoch', epoch,
    'r', total.r, 'r_at', at.r, 't', total.t, 't_at', at.t)
  local ttl_ms = (SLOTS + 1) * 1000
  if spent > 0 then ttl_ms = ttl_ms + (today + 1) * DAY_S * 1000 - now_ms end
  redis.call('PEXPIRE', book, ttl_ms)
end
"""

_ADMIT = """
local lease, tokens, ttl_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local per_minute = {r = tonumber(ARGV[4]), t = tonumber(ARGV[5])}
local running_max, day_max = tonumber(ARGV[6]), tonumber(ARGV[7])
local refused_by, wait_ms = 0, 0

local function refuse(number, ms)
  if ms > wait_ms then refused_by, wait_ms = number, ms end
end

local function check_minute(number, name, amount)
  local limit = per_minute[name]
  local missing = total[name] + amount - limit
  if limit < 0 or amount == 0 or missing <= 0 then return end
  for old = head - SLOTS + 1, head do
    missing = missing - (redis.call('HGET', book, name .. old % SLOTS) or 0)
    if missing <= 0 then return refuse(number, (old + SLOTS) * 1000 - now_ms) end
  end
  refuse(number, SLOTS * 1000)
end

check_minute(1, 'r', 1)
check_minute(2, 't', tokens)
if running_max >= 0 then
  redis.call('ZREMRANGEBYSCORE', leases, '-inf', now_ms)
  if redis.call('ZCARD', leases) >= running_max then refuse(3, 1000) end
end
if day_max >= 0 and tokens > 0 and spent + tokens > day_max then
  refuse(4, (today + 1) * DAY_S * 1000 - now_ms)
end

if refused_by == 0 then
  if per_minute.r >= 0 then add('r', 1) end
  if per_minute.t >= 0 and tokens > 0 then add('t', tokens) end
  if day_max >= 0 then spent = spent + tokens end
  if lease ~= '' then
    redis.call('ZADD', leases, now_ms + ttl_ms, lease)
    redis.call('PEXPIRE', leases, ttl_ms)
  end
end
if refused_by == 0 or steps > 0 then save() end

local function reset_ms(name)
  return total[name] > 0 and (at[name] + SLOTS) * 1000 - now_ms or 0
end
return {refused_by, wait_ms, total.r, reset_ms('r'), total.t, reset_ms('t'), head, today, epoch}
"""

_FINISH = """
-- The lease is what makes it once only: a repeated message finds none and changes nothing.
if redis.call('ZREM', leases, ARGV[1]) == 0 then return 0 end
local more, minute, daily = tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4] == '1'
local charged_at, charged_on, same = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == kept[4]
if more > 0 then
  if minute then add('t', more) end
  if daily then spent = spent + more end
elseif more < 0 and same then
  if minute and charged_at > head - SLOTS and charged_at <= head then
    local field = 't' .. charged_at % SLOTS
    local back = math.min(-more, tonumber(redis.call('HGET', book, field) or 0))
    redis.call('HINCRBY', book, field, -back)
    total.t = total.t - back
  end
  if daily and charged_on == today then spent = math.max(0, spent + more) end
end
if more ~= 0 or steps > 0 then save() end
return 1
"""

_RENEW = """
local time = @TIME@
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for number = 2, #ARGV do
  -- XX: a lease that has ended stays so, whatever order messages arrive in.
  redis.call('ZADD', KEYS[2], 'XX', until_ms, ARGV[number])
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
"""


def admit_script(server_time: str = SERVER_TIME) -> str:
    """Check every limit and take from all of them, or from none.

    ARGV: lease ('' for none), tokens, lease TTL in ms, then the limits (-1 for none): requests and tokens a minute,
    requests at once, tokens a day. Gives: which refused (0 none, 1 to 4 in that order), wait in ms, requests used,
    their reset in ms, tokens used, their reset in ms, second and day of the charge, epoch.
    """
    return (_OPEN + _ADMIT).replace("@TIME@", server_time)


def finish_script(server_time: str = SERVER_TIME) -> str:
    """End a lease and book the difference between tokens charged and used.

    ARGV: lease, difference, 1 if booked by the minute, 1 if by the day, second, day and epoch of the charge.
    Gives 1, or 0 when the lease had ended before.
    """
    return (_OPEN + _FINISH).replace("@TIME@", server_time)


def renew_script(server_time: str = SERVER_TIME) -> str:
    """Prolong leases. ARGV: TTL in ms, leases."""
    return _RENEW.replace("@TIME@", server_time)
