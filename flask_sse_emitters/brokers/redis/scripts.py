"""How a channel lies in Redis, and the steps that touch it: each of them one script, so nothing comes between.

Of a channel there are, with names that Redis Cluster keeps in one slot:

* ``<prefix>:{<channel>}:at``, a hash: its epoch, the offset of its newest event, the bounds it was last given, the
  Redis server that was the master then (``server``), whether there were replicas at any time (``replicas``), and where
  former epochs ended (``former``).
* ``<prefix>:{<channel>}:log``, a stream of the events that are kept: the offset is the first part of an entry's id.
* ``<prefix>:{<channel>}:key:<key>``: the id of the event that was published with this key.
* ``<prefix>:{<channel>}@<db>``, where each event is announced to who listens.

And of who reads them, in one slot, too:

* ``<prefix>:{here}:processes``, a sorted set: the processes that have clients, and until when that holds.
* ``<prefix>:{here}:process:<id>``, a hash: how many clients one of them has of each channel; and in the field
  ``!about``, which is no channel's name, what it says of itself, as JSON.
* ``<prefix>:{here}:probe``, for a millisecond: whether Redis can be written to.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from ...config.settings import DEFAULTS
from ...wire.frame import Frame
from ..event_ids import Position
from ..event_log import Bounds
from .client import Script
from .positions import NOTHING, Known

#: What a process has said of its clients holds for so long.
PRESENCE_SECONDS = 12.0

#: The field of what a process says of itself.
ABOUT = "!about"

#: So many events are looked up at once at most.
ENTRIES = 20

#: Milliseconds for which a key is remembered.
KEY_MS = 300_000

#: Milliseconds for which a channel's epoch is remembered after it was last published to or looked at.
EPOCH_MS = 7 * 86_400_000

#: Milliseconds for which the epoch of a channel that has had no event yet is remembered after it was last looked at. So
#: long any name that a client may ask for takes some memory.
UNUSED_MS = 600_000

#: So many former epochs of a channel are remembered: clients that come back with an older one are told of a gap.
FORMER_KEPT = 8

#: Milliseconds of the longest time that events are kept for, a century.
LONGEST_MS = 3_155_760_000_000

_NOW = """
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
"""

#: Reads the channel, and whether another Redis server than the one that has written there last is the master now. A
#: server gives itself a new replication id when it starts, and when it becomes the master.
_READ_CHANNEL = """
local epoch, offset = redis.call('HGET', at, 'epoch'), redis.call('HGET', at, 'offset')
local server, former = redis.call('HGET', at, 'server'), redis.call('HGET', at, 'former')
local info = redis.pcall('INFO', 'replication')
info = type(info) == 'string' and info or ''
local master = string.match(info, 'master_replid:(%w+)') or server or ''
local is_other = server and server ~= '' and server ~= master
"""

#: Begins the channel anew where it has no epoch, or lacks an event that was known before, as after a failover: it would
#: give its id to another. An event of another time at that offset shows that as well. What was only announced may have
#: come from another program: then another epoch is all that is needed, and what Redis has is left as it is.
_BEGIN_ANEW_WHERE_LOST = """
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
#: started again may lack any depends on its settings: where these were not asked for yet, gives ``?`` and does nothing.
#: Where there were replicas, no setting rules that out: this may be one of them, which was behind.
#: Where the log is something else, or ends with an entry that this package never made, it is deleted and begun anew:
#: clients that lack some of it are told of a gap.
#:
#: Gives the id, whether the event is new, its time, whether the log was begun anew, and the bounds that the channel had
#: before, where they were others.
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
    former = string.match(former, '^' .. string.rep('%S+ ', {FORMER_KEPT})) or former
    redis.call('HSET', at, 'epoch', new, 'former', former)
    epoch = new
  end
end
{_BEGIN_ANEW_WHERE_LOST}
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

#: Gives what there is after a position, as far as it goes at once. Where there is nothing to begin, it writes nothing:
#: a server that is full would refuse that. Where another server has become the master, what it has is true as far as it
#: goes: it is read as it is, and the next event changes the epoch.
LOOK = Script(f"""
local at, log = KEYS[1], KEYS[2]
local new, known, seen, seen_at, is_sure, after, lasts = unpack(ARGV)
{_READ_CHANNEL}
if not epoch or not is_other then
{_BEGIN_ANEW_WHERE_LOST}
end
local upto = epoch == known and offset or string.match(' ' .. (former or ''), ' ' .. known .. ':(%d+)')
local from = '-'
if after ~= '' and upto and tonumber(seen) <= tonumber(upto) then from = string.format('%.0f-0', after + 1) end
local is_unused = (offset or '0') == '0' and lasts ~= '1'
redis.call('PEXPIRE', at, is_unused and {UNUSED_MS} or {EPOCH_MS})
{_NOW}
return {{epoch, offset or '0',
  redis.call('HGET', at, 'events') or '0', redis.call('HGET', at, 'ms') or '0', redis.call('HGET', at, 'last') or '0',
  now, redis.call('XRANGE', log, from, '+', 'COUNT', {ENTRIES}), former or ''}}
""")

#: The clients of one process: all of them, or what has changed. Gives 0 where Redis knew of none before.
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
TRY = Script("return redis.call('SET', KEYS[1], '', 'PX', 1)")

#: How many clients of a channel all other processes have.
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


#: What all processes but this one have said.
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


class Names:
    """What belongs to a channel is called.

    :param prefix: of all of it.
    :param db: the number of the database: announcements know no databases.
    """

    def __init__(self, prefix: str, db: int = 0) -> None:
        self._prefix = prefix
        self._suffix = f"@{db}"
        self.processes = f"{prefix}:{{here}}:processes"
        self.process = f"{prefix}:{{here}}:process:"  #: with its id
        self.probe = f"{prefix}:{{here}}:probe"

    def announcements(self, channel: str) -> str:
        return f"{self._prefix}:{{{channel}}}{self._suffix}"

    def keys(self, channel: str, key: str | None = None) -> list[str]:
        begin = f"{self._prefix}:{{{channel}}}"
        return [f"{begin}:at", f"{begin}:log", *([f"{begin}:key:{key}"] if key is not None else [])]

    def channel(self, announced: bytes) -> str:
        return announced.decode()[len(self._prefix) + 2 : -len(self._suffix) - 1]


class Told(NamedTuple):
    """One event, as it is announced or kept."""

    epoch: str
    offset: int
    ms: int  #: when it was published, by the clock of Redis
    bounds: Bounds
    frame: Frame  #: without an id


class Found(NamedTuple):
    """What there is of a channel."""

    epoch: str
    newest: int
    last: int  #: when that was published, by the clock of Redis; 0 where nothing was
    ms: int  #: the time, by the same
    told: list[Told]  #: what comes next, and not all of it where it ends before the newest
    former: list[Position]  #: where epochs before this one ended, the latest first


def publish_arguments(
    epoch: str, frame: Frame, bounds: Bounds | None, announced: str, known: Known = NOTHING, durable: str = ""
) -> list[Any]:
    """Give the arguments of :data:`PUBLISH`.

    :param epoch: a new one, for where the channel needs one.
    :param known: the newest event that this process knows of.
    :param durable: ``1`` where Redis loses nothing when it is started again, ``0`` where it may; empty where it has not
        been asked.
    """
    name = b"" if frame.name is None else b"=" + frame.name.encode()
    kept = ("", "") if bounds is None else (bounds.events, _milliseconds(bounds.seconds))
    return [epoch, frame.payload, name, *kept, announced, durable, *_known_arguments(known)]


def look_arguments(epoch: str, known: Known, after: int | None, *, lasts: bool = False) -> list[Any]:
    """Give the arguments of :data:`LOOK`.

    :param epoch: as for :func:`publish_arguments`.
    :param after: what comes after this offset is asked for, if Redis still knows of that event; None asks for all.
    :param lasts: the channel is remembered for long, though it may have had no event yet.
    """
    return [epoch, *_known_arguments(known), "" if after is None else after, int(lasts)]


def _known_arguments(known: Known) -> list[Any]:
    return [known.epoch, known.offset, known.ms, int(known.is_sure)]


def read_announcement(data: bytes) -> Told:
    """:raises ValueError: where it is none."""
    head, _, rest = data.partition(b"\n")
    epoch, offset, now, events, ms, length = head.split(b" ")
    name, body = rest[: int(length)], rest[int(length) :]
    return Told(epoch.decode(), int(offset), int(now), _bounds(events, ms), _frame(name, body))


def read_found(answer: list[Any]) -> Found:
    """:raises ValueError: where the keys hold something else."""
    epoch, newest, events, ms, last, now, entries, former = answer
    bounds = _bounds(events, ms)
    told = []
    for entry_id, fields in entries:
        (_, body), (_, name), (_, at) = zip(fields[::2], fields[1::2], strict=True)
        told.append(Told(epoch.decode(), int(entry_id.split(b"-")[0]), int(at), bounds, _frame(name, body)))
    ends = [each.partition(":") for each in former.decode().split()]
    return Found(
        epoch.decode(), int(newest), int(last), int(now), told, [Position(at, int(end)) for at, _, end in ends]
    )


def read_bounds(text: bytes) -> Bounds | None:
    """Read bounds as :data:`PUBLISH` gives them; None where it gives none."""
    return _bounds(*text.split(b" ")) if text else None


def read_process(name: bytes, left: bytes, fields: list[bytes]) -> dict[str, Any]:
    """What a process has said; only its channels where what it says of itself cannot be read.

    :param left: for how many milliseconds that still holds.
    """
    said = {field.decode(errors="replace"): value for field, value in zip(fields[::2], fields[1::2], strict=True)}
    about: Any = None
    with suppress(ValueError):
        about = json.loads(said.pop(ABOUT, b"{}"))
    about = about if isinstance(about, dict) else {}
    channels = {
        channel: int(count)
        for channel, count in sorted(said.items())
        if count.isdigit() and not channel.startswith("!")
    }
    age = max(0.0, PRESENCE_SECONDS - int(left) / 1000)
    return {**about, "id": name.decode(), "age": round(age, 3), "channels": channels}


def read_clock(answer: list[Any]) -> float:
    """The time of this answer, in seconds, by the clock of Redis."""
    return int(answer[5]) / 1000


def _milliseconds(seconds: float) -> int:
    """0 is for ever; Redis takes no more than LONGEST_MS."""
    return min(max(round(seconds * 1000), 1), LONGEST_MS) if seconds else 0


@lru_cache(maxsize=256)
def _bounds(events: bytes, ms: bytes) -> Bounds:
    return Bounds(int(events), int(ms) / 1000)


def _frame(name: bytes, body: bytes) -> Frame:
    return Frame(body, name[1:].decode() if name else None)
