"""How a channel lies in Redis, and the steps that touch it: each of them one script, so nothing comes between.

Of a channel there are, with names that Redis Cluster keeps in one slot:

* ``<prefix>:{<channel>}:at``, a hash: its epoch, the offset of its newest event, and the bounds it was last given.
* ``<prefix>:{<channel>}:log``, a stream of the events that are kept: the offset is the first part of an entry's id.
* ``<prefix>:{<channel>}:key:<key>``: the id of the event that was published with this key.
* ``<prefix>:{<channel>}@<db>``, where each event is announced to who listens.

And of who reads them, in one slot, too:

* ``<prefix>:{here}:processes``, a sorted set: the processes that have clients, and until when that holds.
* ``<prefix>:{here}:process:<id>``, a hash: how many clients one of them has of each channel; and in the field
  ``!about``, which is no channel's name, what it says of itself, as JSON.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from ..frames import Frame
from ..history import Bounds, Position
from ..settings import DEFAULTS
from .redis_client import Script

#: No channel has been there.
NOWHERE = Position("", 0)

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

#: Milliseconds of the longest time that events are kept for, a century.
LONGEST_MS = 3_155_760_000_000

_NOW = """
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
"""

#: Where the channel is behind a position that was known of it, it has lost events, as after a failover, and would give
#: their ids to others.
_BEGIN_ANEW_WHERE_LOST = """
if redis.call('HGET', at, 'epoch') == known and tonumber(redis.call('HGET', at, 'offset') or 0) < tonumber(seen) then
  redis.call('HSET', at, 'epoch', epoch, 'offset', 0, 'last', 0)
  redis.call('DEL', log)
end
"""

PUBLISH = Script(f"""
local at, log, key = KEYS[1], KEYS[2], KEYS[3]
local epoch, body, name, events, ms, announced, known, seen = unpack(ARGV)
if key then
  local before = redis.call('GET', key)
  if before then return {{before, 0}} end
end
if redis.call('HSETNX', at, 'epoch', epoch) == 1 then redis.call('DEL', log) end
{_BEGIN_ANEW_WHERE_LOST}
epoch = redis.call('HGET', at, 'epoch')
local offset = redis.call('HINCRBY', at, 'offset', 1)
if events == '' then
  events = redis.call('HGET', at, 'events') or '{DEFAULTS.history}'
  ms = redis.call('HGET', at, 'ms') or '{DEFAULTS.history_seconds * 1000:.0f}'
end
redis.call('HSET', at, 'events', events, 'ms', ms)
redis.call('PEXPIRE', at, {EPOCH_MS})
{_NOW}
redis.call('HSET', at, 'last', now)
if tonumber(events) > 0 then
  redis.call('XADD', log, 'MAXLEN', events, string.format('%.0f-0', offset), 'b', body, 'n', name, 't', now)
  if tonumber(ms) > 0 then
    redis.call('PEXPIRE', log, ms)
    for _ = 1, 2 do
      local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
      if not oldest or tonumber(oldest[2][6]) > now - ms then break end
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
return {{id, 1}}
""")

#: What there is after a position, as far as it goes at once. Another event at that position shows as well that some
#: were lost. Nothing is written where there is nothing to begin: a server that is full refuses that.
LOOK = Script(f"""
local at, log = KEYS[1], KEYS[2]
local epoch, known, seen, seen_at = unpack(ARGV)
if not redis.call('HGET', at, 'epoch') then
  redis.call('HSET', at, 'epoch', epoch)
  redis.call('DEL', log)
end
local last = string.format('%.0f-0', seen)
local there = seen_at ~= '0' and redis.call('HGET', at, 'epoch') == known and redis.call('XRANGE', log, last, last)[1]
if there and there[2][6] ~= seen_at then seen = '1e18' end
{_BEGIN_ANEW_WHERE_LOST}
local from = '-'
if redis.call('HGET', at, 'epoch') == known then from = string.format('%.0f-0', seen + 1) end
redis.call('PEXPIRE', at, {EPOCH_MS})
{_NOW}
return {{redis.call('HGET', at, 'epoch'), redis.call('HGET', at, 'offset') or '0',
  redis.call('HGET', at, 'events') or '0', redis.call('HGET', at, 'ms') or '0', redis.call('HGET', at, 'last') or '0',
  now, redis.call('XRANGE', log, from, '+', 'COUNT', {ENTRIES})}}
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


def publish_arguments(
    epoch: str, frame: Frame, bounds: Bounds | None, announced: str, known: Position = NOWHERE
) -> list[Any]:
    """:param known: the channel has been there."""
    name = b"" if frame.name is None else b"=" + frame.name.encode()
    kept = ("", "") if bounds is None else (bounds.events, _milliseconds(bounds.seconds))
    return [epoch, frame.payload, name, *kept, announced, *known]


def read_announcement(data: bytes) -> Told:
    """:raises ValueError: where it is none."""
    head, _, rest = data.partition(b"\n")
    epoch, offset, now, events, ms, length = head.split(b" ")
    name, body = rest[: int(length)], rest[int(length) :]
    return Told(epoch.decode(), int(offset), int(now), _bounds(events, ms), _frame(name, body))


def read_found(answer: list[Any]) -> Found:
    """:raises ValueError: where the keys hold something else."""
    epoch, newest, events, ms, last, now, entries = answer
    bounds = _bounds(events, ms)
    told = []
    for entry_id, fields in entries:
        (_, body), (_, name), (_, at) = zip(fields[::2], fields[1::2], strict=True)
        told.append(Told(epoch.decode(), int(entry_id.split(b"-")[0]), int(at), bounds, _frame(name, body)))
    return Found(epoch.decode(), int(newest), int(last), int(now), told)


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
