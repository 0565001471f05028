"""How a channel lies in Redis, and the scripts that touch it: nothing comes between the steps of one.

A channel has these keys, with names that Redis Cluster keeps in one slot:

* ``<prefix>:{<channel>}:at``, a hash: its epoch, the offset of its newest event, the bounds it was last given, the
  Redis server that was the master then (``server``), whether there were replicas at any time (``replicas``), and where
  former epochs ended (``former``).
* ``<prefix>:{<channel>}:log``, a stream of the events that are kept: the offset is the first part of an entry's id.
* ``<prefix>:{<channel>}:key:<key>``: the id of the event that was published with this key.
* ``<prefix>:{<channel>}@<db>``, the Redis channel on which each event is announced.

The processes that listen have these, in one slot, too:

* ``<prefix>:{here}:processes``, a sorted set: the processes that have clients, and until when that holds.
* ``<prefix>:{here}:process:<id>``, a hash: how many clients a process has of each channel; and in the field
  ``!about``, which is no channel's name, what the process reports of itself, as JSON.
* ``<prefix>:{here}:probe``, for a millisecond: whether Redis can be written to.

Their names, the arguments of the scripts, and the parsing of what they return are in :mod:`.messages`. Processes with
the version before this one may share the same Redis.
"""

from __future__ import annotations

import hashlib

from ...config.settings import DEFAULTS

#: So many events are looked up at once at most.
MAX_ENTRIES = 20

#: Milliseconds for which a key is remembered.
KEY_MS = 300_000

#: Milliseconds for which a channel's epoch is remembered after the last publish or lookup.
EPOCH_MS = 7 * 86_400_000

#: Milliseconds for which the epoch of a channel without any event yet is remembered after the last lookup. For so long
#: any name that a client may ask for takes some memory.
UNUSED_MS = 600_000

#: So many former epochs of a channel are remembered: clients that come back with an older one receive a gap.
MAX_FORMER_EPOCHS = 8


class Script:
    """A Lua script, which Redis runs as one step."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_NOW = """
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
"""

#: Reads the channel, and whether the master is another Redis server than at the last write to it. A server gives itself
#: a new replication id when it starts, and when it becomes the master.
_READ_CHANNEL = """
local epoch, offset = redis.call('HGET', at, 'epoch'), redis.call('HGET', at, 'offset')
local server, former = redis.call('HGET', at, 'server'), redis.call('HGET', at, 'former')
local info = redis.pcall('INFO', 'replication')
info = type(info) == 'string' and info or ''
local master = string.match(info, 'master_replid:(%w+)') or server or ''
local is_other = server and server ~= '' and server ~= master
"""

#: Begins a new epoch where the channel has none, or lacks an event that was known before, as after a failover: its id
#: would be given to another. An event of another time at that offset shows that as well. An event that was only
#: announced may have come from another program: then the new epoch is enough, and what Redis has is left as it is.
_RESET_IF_LOST = """
local lost = not epoch
if epoch == known then
  lost = tonumber(offset or 0) < tonumber(seen)
  if not lost and seen_at ~= '0' then
    if tonumber(offset) == tonumber(seen) then
      lost = redis.call('HGET', at, 'last') ~= seen_at
    else
      local place = string.format('%.0f-0', seen)
      local there = redis.pcall('XRANGE', log, place, place)[1]
      lost = there and there[2][6] ~= seen_at
    end
  end
end
if lost then
  redis.call('HSET', at, 'epoch', new)
  redis.call('HDEL', at, 'former')
  if not epoch or is_sure == '1' then
    redis.call('HSET', at, 'offset', 0, 'last', 0)
    redis.call('DEL', log)
    offset = '0'
  end
  epoch, former = new, ''
end
"""

#: Gives the event an offset, keeps it, and announces it. Where another server is the master, which may lack events that
#: were confirmed, offsets go on under another epoch: so no event gets the id of a lost one. Whether a server that was
#: restarted may lack any depends on its settings: where these are not known yet, this returns ``?`` and does nothing.
#: Where there were replicas, no setting rules it out: this may be one of them, which was behind.
#: Where the log is something else, or ends with an entry that this package never made, it is deleted and begun again:
#: clients that lack some of it receive a gap.
#:
#: Returns the id, whether the event is new, its time, whether the log was begun again, and the bounds that the channel
#: had before, where they differ.
PUBLISH = Script(f"""
local at, log, key = KEYS[1], KEYS[2], KEYS[3]
local new, body, name, events, ms, announced, is_durable, known, seen, seen_at, is_sure = unpack(ARGV)
if key then
  local before = redis.call('GET', key)
  if before then return {{before, 0, 0, 0, ''}} end
end
{_READ_CHANNEL}
if epoch and is_other then
  if is_durable == '' then return {{'?', 0, 0, 0, ''}} end
  local may_lag = redis.call('HGET', at, 'replicas') or not string.match(info, 'master_replid2:0+%s')
  if is_durable == '0' or may_lag then
    former = epoch .. ':' .. (offset or '0') .. ' ' .. (former or '')
    former = string.match(former, '^' .. string.rep('%S+ ', {MAX_FORMER_EPOCHS})) or former
    redis.call('HSET', at, 'epoch', new, 'former', former)
    epoch = new
  end
end
{_RESET_IF_LOST}
local offset = redis.call('HINCRBY', at, 'offset', 1)
local kept, kept_ms = redis.call('HGET', at, 'events'), redis.call('HGET', at, 'ms')
if events == '' then
  events = kept or '{DEFAULTS.history}'
  ms = kept_ms or '{DEFAULTS.history_seconds * 1000:.0f}'
end
local other = kept and (kept ~= events or kept_ms ~= ms) and kept .. ' ' .. (kept_ms or '0') or ''
{_NOW}
redis.call('HSET', at, 'events', events, 'ms', ms, 'last', now, 'server', master)
if string.match(info, 'connected_slaves:[1-9]') then redis.call('HSET', at, 'replicas', 1) end
redis.call('PEXPIRE', at, {EPOCH_MS})
local is_begun = 0
if tonumber(events) > 0 then
  local place = string.format('%.0f-0', offset)
  local entry = {{'XADD', log, 'MAXLEN', events, place, 'b', body, 'n', name, 't', now}}
  local added = redis.pcall(unpack(entry))
  local clash = type(added) == 'table' and added.err or ''
  if string.find(clash, 'WRONGTYPE', 1, true) or string.find(clash, 'equal or smaller', 1, true) then
    redis.call('DEL', log)
    redis.call(unpack(entry))
    is_begun = 1
  elseif clash ~= '' then
    return redis.error_reply(clash)
  end
  if tonumber(ms) > 0 then
    redis.call('PEXPIRE', log, ms)
    for _ = 1, 2 do
      local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
      if not oldest or (tonumber(oldest[2][6] or '') or 0) > now - ms then break end
      redis.call('XDEL', log, oldest[1])
    end
  else
    redis.call('PERSIST', log)
  end
else
  redis.call('DEL', log)
end
local head = table.concat({{epoch, string.format('%.0f', offset), now, events, ms, #name}}, ' ')
redis.call('PUBLISH', announced, head .. '\\n' .. name .. body)
local id = epoch .. '-' .. string.format('%.0f', offset)
if key then redis.call('SET', key, id, 'PX', {KEY_MS}) end
return {{id, 1, now, is_begun, other}}
""")

#: Returns the channel's state, and the events after a position, as many as fit. Where no epoch has to begin, it writes
#: nothing: a server that is full would refuse that. Where another server has become the master, what it has is true as
#: far as it goes: it is read as it is, and the next event changes the epoch.
LOOK_UP = Script(f"""
local at, log = KEYS[1], KEYS[2]
local new, known, seen, seen_at, is_sure, after, lasts = unpack(ARGV)
{_READ_CHANNEL}
if not epoch or not is_other then
{_RESET_IF_LOST}
end
local upto = epoch == known and offset or string.match(' ' .. (former or ''), ' ' .. known .. ':(%d+)')
local from = '-'
if after ~= '' and upto and tonumber(seen) <= tonumber(upto) then from = string.format('%.0f-0', after + 1) end
local is_unused = (offset or '0') == '0' and lasts ~= '1'
redis.call('PEXPIRE', at, is_unused and {UNUSED_MS} or {EPOCH_MS})
{_NOW}
return {{epoch, offset or '0',
  redis.call('HGET', at, 'events') or '0', redis.call('HGET', at, 'ms') or '0', redis.call('HGET', at, 'last') or '0',
  now, redis.call('XRANGE', log, from, '+', 'COUNT', {MAX_ENTRIES}), former or ''}}
""")

#: Sets the clients of one process: all of them, or what has changed. Returns 0 where Redis knew of none before.
COUNT = Script(f"""
local all, mine = KEYS[1], KEYS[2]
local process, ms = ARGV[1], ARGV[2]
local known = redis.call('EXISTS', mine)
if ARGV[3] == '1' then redis.call('DEL', mine) end
for index = 4, #ARGV, 2 do
  if ARGV[index + 1] == '0' then
    redis.call('HDEL', mine, ARGV[index])
  else
    redis.call('HSET', mine, ARGV[index], ARGV[index + 1])
  end
end
{_NOW}
redis.call('ZREMRANGEBYSCORE', all, '-inf', now)
if redis.call('EXISTS', mine) == 1 then
  redis.call('PEXPIRE', mine, ms)
  redis.call('ZADD', all, string.format('%.0f', now + ms), process)
  redis.call('PEXPIRE', all, ms)
else
  redis.call('ZREM', all, process)
end
return known
""")

#: Writes something that is gone at once: a server that is full, or a replica, refuses it.
TRY_WRITE = Script("return redis.call('SET', KEYS[1], '', 'PX', 1)")

#: Returns how many clients of a channel all other processes have.
SUM = Script(f"""
{_NOW}
local sum = 0
for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do
  if process ~= ARGV[1] then
    sum = sum + (redis.call('HGET', ARGV[2] .. process, ARGV[3]) or 0)
  end
end
return sum
""")

#: Returns what all processes but this one have reported.
PROCESSES = Script(f"""
{_NOW}
local found = {{}}
local living = redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'WITHSCORES')
for index = 1, #living, 2 do
  if living[index] ~= ARGV[1] then
    local left = living[index + 1] - now
    table.insert(found, {{living[index], string.format('%.0f', left), redis.call('HGETALL', ARGV[2] .. living[index])}})
  end
end
return found
""")
