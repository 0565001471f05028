"""The scripts that publish to channels, look them up, and give them to runs.

Each is made of steps, which follow here first.
"""

from __future__ import annotations

from ....config.settings import DEFAULTS
from ....wire.frame import END
from ...base import INTERRUPTED
from ...event_ids import EPOCH_LENGTH
from ...event_log import MAX_FORMER_EPOCHS
from . import NOW, Script

#: So many events are looked up at once at most.
MAX_ENTRIES = 20

#: Milliseconds for which a key is remembered.
KEY_MS = 300_000

#: Milliseconds for which a channel's epoch is remembered after the last publish or lookup, or for as long as its events
#: are kept: without it, they would be deleted. See docs/brokers.rst for what is lost with it.
EPOCH_MS = 7 * 86_400_000

#: Milliseconds for which the epoch of a channel that has had no event, and has no run, is remembered after the last
#: lookup. For so long any name that a client may ask for takes some memory.
UNUSED_MS = 600_000

#: Reads the channel, and whether the master is another Redis server than at the last write to it. A server gives itself
#: a new replication id when it starts, and when it becomes the master.
_READ_CHANNEL = f"""
local epoch, offset = redis.call('HGET', at, 'epoch'), redis.call('HGET', at, 'offset')
local server, former = redis.call('HGET', at, 'server'), redis.call('HGET', at, 'former')
local first, complete = redis.call('HGET', at, 'first'), redis.call('HGET', at, 'complete')
local run, run_until = redis.call('HGET', at, 'run'), redis.call('HGET', at, 'run_until')
complete = complete and tonumber(complete) == tonumber(offset)
local info = redis.pcall('INFO', 'replication')
info = type(info) == 'string' and info or ''
local master = string.match(info, 'master_replid:(%w+)') or server or ''
local is_other = server and server ~= '' and server ~= master
local used = 0
local function new_epoch()
  used = used + {EPOCH_LENGTH}
  return string.sub(epochs, used - {EPOCH_LENGTH - 1}, used)
end
{NOW}
"""

#: Remembers the channel for as long as its events, and for EPOCH_MS at least.
_KEEP_EPOCH = f"""
local function keep_epoch(events, ms)
  if tonumber(ms) == 0 and tonumber(events) > 0 then
    redis.call('PERSIST', at)
  else
    redis.call('PEXPIRE', at, string.format('%.0f', math.max({EPOCH_MS}, ms)))
  end
end
local function keep_epoch_as_it_is()
  keep_epoch(redis.call('HGET', at, 'events') or '0', redis.call('HGET', at, 'ms') or '0')
end
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
  local new = new_epoch()
  redis.call('HSET', at, 'epoch', new)
  redis.call('HDEL', at, 'former')
  if not epoch or is_sure == '1' then
    redis.call('HSET', at, 'offset', 0, 'last', 0)
    redis.call('HDEL', at, 'first', 'complete')
    redis.call('DEL', log)
    offset, first, complete = '0', false, false
  end
  epoch, former = new, ''
end
"""

#: The steps of an event: it begins another epoch where it follows an end, gets its offset, is kept, and announced.
#: An end is kept beside as many events as the bounds allow, and ends the run that has the channel.
_APPEND = f"""
{_KEEP_EPOCH}
local function change_epoch()
  former = epoch .. ':' .. string.format('%.0f', offset or 0) .. ' ' .. (former or '')
  former = string.match(former, '^' .. string.rep('%S+ ', {MAX_FORMER_EPOCHS})) or former
  epoch, is_other = new_epoch(), false
  redis.call('HSET', at, 'epoch', epoch, 'former', former)
end
local function begin_anew()
  if not complete then return end
  change_epoch()
  first, complete = string.format('%.0f', offset + 1), false
  redis.call('HSET', at, 'first', first)
  redis.call('HDEL', at, 'complete')
end
local function announce(number, time, events, ms, name, body)
  local head = table.concat({{epoch, string.format('%.0f', number), time, events, ms, #name}}, ' ')
  redis.call('PUBLISH', announced, head .. '\\n' .. name .. body)
end
local function append(body, name, events, ms)
  begin_anew()
  local is_begun, is_end = 0, name == '={END}'
  offset = redis.call('HINCRBY', at, 'offset', 1)
  local kept, kept_ms = redis.call('HGET', at, 'events'), redis.call('HGET', at, 'ms')
  if events == '' then
    events = kept or '{DEFAULTS.history}'
    ms = kept_ms or '{DEFAULTS.history_seconds * 1000:.0f}'
  end
  local other = kept and (kept ~= events or kept_ms ~= ms) and kept .. ' ' .. (kept_ms or '0') or ''
  redis.call('HSET', at, 'events', events, 'ms', ms, 'last', now, 'server', master)
  if string.match(info, 'connected_slaves:[1-9]') then redis.call('HSET', at, 'replicas', 1) end
  if is_end then
    redis.call('HSET', at, 'complete', string.format('%.0f', offset))
    redis.call('HDEL', at, 'run', 'run_ms', 'run_until')
    complete, run = true, false
  end
  keep_epoch(events, ms)
  local most = events + (is_end and 1 or 0)
  if most > 0 then
    local place = string.format('%.0f-0', offset)
    local entry = {{'XADD', log, 'MAXLEN', string.format('%.0f', most), place, 'b', body, 'n', name, 't', now}}
    local added = redis.pcall(unpack(entry))
    local clash = type(added) == 'table' and added.err or ''
    if string.find(clash, 'WRONGTYPE', 1, true) or string.find(clash, 'equal or smaller', 1, true) then
      redis.call('DEL', log)
      redis.call(unpack(entry))
      is_begun = 1
    elseif clash ~= '' then
      return {{clash = clash}}
    end
    if tonumber(ms) > 0 then
      redis.call('PEXPIRE', log, ms)
      for _ = 1, 2 do
        local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
        if not oldest or (tonumber(oldest[2][6] or '') or 0) > now - ms then break end
        redis.call('XDEL', log, oldest[1])
      end
    elseif tonumber(events) > 0 then
      redis.call('PERSIST', log)
    else
      redis.call('PEXPIRE', log, {EPOCH_MS})
    end
  else
    redis.call('DEL', log)
  end
  announce(offset, now, events, ms, name, body)
  return {{epoch .. '-' .. string.format('%.0f', offset), 1, now, is_begun, other}}
end
"""

#: Ends the channel where its run is dead. A server that is full lets this pass, as the first write removes something.
#: Where another server is the master, the epoch changes in any case: see PUBLISH.
_END_DEAD_RUN = f"""
if run and tonumber(run_until) <= tonumber(now) then
  redis.call('HDEL', at, 'run', 'run_ms', 'run_until')
  run = false
  if is_other then change_epoch() end
  append({INTERRUPTED.payload.decode()!r}, '={INTERRUPTED.name}', '', '')
  append('', '={END}', '', '')
end
"""

#: Publishes events of one channel, one after the other. Where another server is the master, which may lack events that
#: were confirmed, offsets go on under another epoch: so no event gets the id of a lost one. Whether a server that was
#: restarted may lack any depends on its settings: where these are not known yet, this returns ``?`` and does nothing.
#: Where there were replicas, no setting rules it out: this may be one of them, which was behind.
#: Where the log is something else, or ends with an entry that this package never made, it is deleted and begun again:
#: clients that lack some of it receive a gap.
#:
#: Returns for each event the id, whether it is new, its time, whether the log was begun again, and the bounds that the
#: channel had before, where they differ. An event of a run that has lost the channel has no id.
PUBLISH = Script(f"""
local at, log = KEYS[1], KEYS[2]
local epochs, announced, is_durable, known, seen, seen_at, is_sure = unpack(ARGV, 1, 7)
local results, wanted, keys = {{}}, 0, 2
for index = 8, #ARGV, 6 do
  wanted, keys = wanted + 1, keys + ARGV[index + 5]
  local before = ARGV[index + 5] == '1' and redis.call('GET', KEYS[keys])
  results[wanted] = before and {{before, 0, 0, 0, ''}}
end
local is_needed = false
for number = 1, wanted do is_needed = is_needed or not results[number] end
if not is_needed then return results end
{_READ_CHANNEL}
{_APPEND}
if epoch and is_other then
  if is_durable == '' then return {{'?'}} end
  local may_lag = redis.call('HGET', at, 'replicas') or not string.match(info, 'master_replid2:0+%s')
  if is_durable == '0' or may_lag then change_epoch() end
  is_other = false
end
{_RESET_IF_LOST}
{_END_DEAD_RUN}
keys = 2
for number = 1, wanted do
  local index = 2 + number * 6
  local body, name, events, ms, publisher, has_key = unpack(ARGV, index, index + 5)
  keys = keys + has_key
  local key = has_key == '1' and KEYS[keys]
  local before = key and redis.call('GET', key)
  if before then
    results[number] = {{before, 0, 0, 0, ''}}
  elseif publisher ~= '' and publisher ~= run then
    results[number] = {{'', 0, 0, 0, ''}}
  elseif name == '={END}' and complete then
    results[number] = {{epoch .. '-' .. string.format('%.0f', offset), 0, 0, 0, ''}}
  else
    if publisher ~= '' then
      local lease = redis.call('HGET', at, 'run_ms')
      redis.call('HSET', at, 'run_until', string.format('%.0f', now + lease))
    end
    local result = append(body, name, events, ms)
    if result.clash then return redis.error_reply(result.clash) end
    local id = result[1]
    if key then redis.call('SET', key, id, 'PX', {KEY_MS}) end
    results[number] = result
  end
end
return results
""")

#: The arguments of scripts that read a channel, and what comes before all else there. Where no epoch has to begin, it
#: writes nothing that a server that is full would refuse. Where another server has become the master, what it has is
#: true as far as it goes: it is read as it is, and the next event changes the epoch.
READ = f"""
local at, log = KEYS[1], KEYS[2]
local epochs, announced, known, seen, seen_at, is_sure = unpack(ARGV, 1, 6)
{_READ_CHANNEL}
{_APPEND}
if not epoch or not is_other then
{_RESET_IF_LOST}
end
{_END_DEAD_RUN}
local function remember(lasts)
  local is_unused = tonumber(offset or '0') == 0 and not lasts and not run
  if is_unused then redis.call('PEXPIRE', at, {UNUSED_MS}) else keep_epoch_as_it_is() end
end
"""

#: Returns the channel's state, and the events after a position, as many as fit.
LOOK_UP = Script(f"""
{READ}
local after, lasts = ARGV[7], ARGV[8] == '1'
local upto = epoch == known and offset or string.match(' ' .. (former or ''), ' ' .. known .. ':(%d+)')
local from = '-'
if after ~= '' and upto and tonumber(seen) <= tonumber(upto) then from = string.format('%.0f-0', after + 1) end
remember(lasts)
return {{epoch, offset or '0',
  redis.call('HGET', at, 'events') or '0', redis.call('HGET', at, 'ms') or '0', redis.call('HGET', at, 'last') or '0',
  now, redis.call('XRANGE', log, from, '+', 'COUNT', {MAX_ENTRIES}), former or '',
  first or '0', complete and 1 or 0, run and run_until or '0'}}
""")

#: Returns the channel's state alone: its epoch, the offsets of its newest event and of its oldest one that is not too
#: old, the offset before which no one begins anew, whether it is complete, and whether it has a run.
STATE = Script(f"""
{READ}
remember(false)
local ms = tonumber(redis.call('HGET', at, 'ms') or '0')
local function find(least)
  local entry = redis.pcall('XRANGE', log, string.format('%.0f-0', least), '+', 'COUNT', 1)[1]
  local found = entry and tonumber(string.match(entry[1], '%d+'))
  return found, found and (ms == 0 or (tonumber(entry[2][6] or '') or 0) > now - ms)
end
local beyond = (offset or 0) + 1
local oldest, is_kept = find(0)
oldest = oldest and (is_kept and oldest or oldest + 1) or beyond
while not is_kept and oldest < beyond do
  local middle = math.floor((oldest + beyond) / 2)
  local found, is_young = find(middle)
  if found and not is_young then oldest = found + 1 else beyond = middle end
end
return {{epoch, offset or '0', string.format('%.0f', oldest), first or '0', complete and 1 or 0, run and 1 or 0}}
""")

#: Gives the channel to a run, and has all processes look it up: what is announced is no event that one can have.
#: Returns whether the run has it.
START_RUN = Script(f"""
{READ}
local name, lease = ARGV[7], ARGV[8]
if not run then
  begin_anew()
  redis.call('HSET', at, 'run', name, 'run_ms', lease, 'run_until', string.format('%.0f', now + lease))
  run = name
  local last = redis.call('HGET', at, 'last') or '0'
  announce(0, string.format('%.0f', math.max(now, last + 1)), '0', '0', '', '')
end
remember(false)
return run == name and 1 or 0
""")

#: Lets a run have the channel for longer. Returns whether it still has it. One that is dead, :data:`LOOK_UP` ends.
RENEW_RUN = Script(f"""
local at = KEYS[1]
{_KEEP_EPOCH}
local run, run_until = redis.call('HGET', at, 'run'), redis.call('HGET', at, 'run_until')
{NOW}
if run ~= ARGV[1] or tonumber(run_until) <= tonumber(now) then return 0 end
redis.call('HSET', at, 'run_until', string.format('%.0f', now + ARGV[2]))
keep_epoch_as_it_is()
return 1
""")

#: Takes the channel from its run, and ends it, also where the server is full. Returns whether there was one.
CANCEL_RUN = Script(f"""
{READ}
if not run then return 0 end
redis.call('HDEL', at, 'run')
if is_other then change_epoch() end
append('', '={END}', ARGV[7], ARGV[8])
return 1
""")
