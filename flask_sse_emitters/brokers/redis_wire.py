"""How a channel lies in Redis, and the two steps that touch it: each of them one script, so nothing comes between.

Of a channel there are, with names that Redis Cluster keeps in one slot:

* ``<prefix>:{<channel>}:at``, a hash: its epoch, the offset of its newest event, and the bounds it was last given.
* ``<prefix>:{<channel>}:log``, a stream of the events that are kept: the offset is the first part of an entry's id.
* ``<prefix>:{<channel>}:key:<key>``: the id of the event that was published with this key.
* ``<prefix>:{<channel>}``, where each event is announced to who listens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..frames import Frame
from ..history import Bounds

#: Milliseconds for which a key is remembered.
KEY_MS = 300_000

#: Milliseconds for which a channel's epoch is remembered after it was last published to or listened to.
EPOCH_MS = 7 * 86_400_000

PUBLISH = f"""
local at, log, key = KEYS[1], KEYS[2], KEYS[3]
local epoch, body, name, events, ms, announced = unpack(ARGV)
if key then
  local before = redis.call('GET', key)
  if before then return {{before, 0}} end
end
if redis.call('HSETNX', at, 'epoch', epoch) == 1 then redis.call('DEL', log) end
epoch = redis.call('HGET', at, 'epoch')
local offset = redis.call('HINCRBY', at, 'offset', 1)
redis.call('HSET', at, 'events', events, 'ms', ms)
redis.call('PEXPIRE', at, {EPOCH_MS})
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
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
"""

#: What is known from a position on. Where Redis is behind it, it has lost events, and would give their ids again: so
#: the channel begins anew.
LOOK = f"""
local at, log = KEYS[1], KEYS[2]
local epoch, known, seen = unpack(ARGV)
if redis.call('HSETNX', at, 'epoch', epoch) == 1 then redis.call('DEL', log) end
local offset = tonumber(redis.call('HGET', at, 'offset') or 0)
if redis.call('HGET', at, 'epoch') == known and offset < tonumber(seen) then
  redis.call('HSET', at, 'epoch', epoch, 'offset', 0)
  redis.call('DEL', log)
  offset = 0
end
redis.call('PEXPIRE', at, {EPOCH_MS})
local from = '-'
if redis.call('HGET', at, 'epoch') == known then from = string.format('%.0f-0', seen + 1) end
local clock = redis.call('TIME')
return {{redis.call('HGET', at, 'epoch'), string.format('%.0f', offset), redis.call('HGET', at, 'events') or '0',
  redis.call('HGET', at, 'ms') or '0', string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)),
  redis.call('XRANGE', log, from, '+')}}
"""


class Names:
    """What belongs to a channel is called.

    :param prefix: of all of it.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def announcements(self, channel: str) -> str:
        return f"{self._prefix}:{{{channel}}}"

    def keys(self, channel: str, key: str | None = None) -> list[str]:
        announced = self.announcements(channel)
        return [f"{announced}:at", f"{announced}:log", *([f"{announced}:key:{key}"] if key is not None else [])]

    def channel(self, announced: bytes) -> str:
        return announced.decode()[len(self._prefix) + 2 : -1]


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
    ms: int  #: the time, by the clock of Redis
    told: list[Told]


def publish_arguments(epoch: str, frame: Frame, bounds: Bounds, announced: str) -> list[Any]:
    name = b"" if frame.name is None else b"=" + frame.name.encode()
    return [epoch, frame.payload, name, bounds.events, round(bounds.seconds * 1000), announced]


def read_announcement(data: bytes) -> Told:
    head, _, rest = data.partition(b"\n")
    epoch, offset, now, events, ms, length = head.split(b" ")
    name, body = rest[: int(length)], rest[int(length) :]
    return Told(epoch.decode(), int(offset), int(now), _bounds(events, ms), _frame(name, body))


def read_found(answer: list[Any]) -> Found:
    epoch, newest, events, ms, now, entries = answer
    bounds = _bounds(events, ms)
    told = []
    for entry_id, fields in entries:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        frame = _frame(values[b"n"], values[b"b"])
        told.append(Told(epoch.decode(), int(entry_id.split(b"-")[0]), int(values[b"t"]), bounds, frame))
    return Found(epoch.decode(), int(newest), int(now), told)


def _bounds(events: bytes, ms: bytes) -> Bounds:
    return Bounds(int(events), int(ms) / 1000)


def _frame(name: bytes, body: bytes) -> Frame:
    return Frame(body, name[1:].decode() if name else None)
