"""How a channel lies in Redis, and the scripts that touch it: nothing comes between the steps of one.

A channel has these keys, with names that Redis Cluster keeps in one slot:

* ``<prefix>:{<channel>}:at``, a hash: its epoch, the offset of its newest event, the bounds it was last given, the
  Redis server that was the master then (``server``), whether there were replicas at any time (``replicas``), where
  former epochs ended (``former``), the offset after the last end that something follows (``first``), and that of a
  later end (``complete``). The run that has it has its name there (``run``), for how long (``run_ms``), and until when.
* ``<prefix>:{<channel>}:log``, a stream of the events that are kept: the offset is the first part of an entry's id. The
  end of the channel is an entry, too, with a name that no event has.
* ``<prefix>:{<channel>}:key:<key>``: the id of the event that was published with this key.
* ``<prefix>:{<channel>}@<db>``, the Redis channel on which each event is announced.

The processes that listen have these, in one slot, too:

* ``<prefix>:{here}:processes``, a sorted set: the processes that have clients, and until when that holds.
* ``<prefix>:{here}:process:<id>``, a hash: how many clients a process has of each channel; and in the field
  ``!about``, which is no channel's name, what the process reports of itself, as JSON.
* ``<prefix>:{here}:probe``, for a millisecond: whether Redis can be written to.
* ``<prefix>:{here}:format``: the version of all this, :data:`.FORMAT`.

Their names, the arguments of the scripts, and the parsing of what they return are in :mod:`.messages`. Processes of
another version of this package with the same format may share the same Redis. They pass over fields that they do not
know: those of an entry in the log, of a hash, and of an announcement's first line beyond the sixth.
"""

from __future__ import annotations

import hashlib


class Script:
    """A Lua script, which Redis runs as one step."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


#: The time of Redis's clock, in milliseconds.
NOW = """
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
"""
