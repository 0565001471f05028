"""Messages to and from Redis: names of keys, arguments of the :mod:`.scripts`, and the parsing of their answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ...wire.frame import Frame
from ..base import ChannelState, MemberChange, Publication
from ..event_ids import Position, new_epochs
from ..event_log import Bounds
from ..listening.lookup import UNKNOWN, Announcement, Lookup
from ..listening.lookup import KnownEvent as KnownEvent

#: Seconds for which the counts that a process reports hold.
PRESENCE_SECONDS = 12.0

#: So many channels are named in one command at most.
NAMES_PER_COMMAND = 200

#: The field of a process's report that is not the count of a channel.
ABOUT = "!about"

#: Milliseconds of the longest time that events are kept for, a century: Redis takes no more.
LONGEST_MS = 3_155_760_000_000


class KeyNames:
    """The names of the keys and announcements in Redis.

    :param prefix: of all of them.
    :param db: the number of the database: announcements know no databases.
    """

    def __init__(self, prefix: str, db: int = 0) -> None:
        self._prefix = prefix
        self._suffix = f"@{db}"
        self.processes = f"{prefix}:{{here}}:processes"
        self.process = f"{prefix}:{{here}}:process:"  #: and its id
        self.format = f"{prefix}:{{here}}:format"
        self.probe = f"{prefix}:{{here}}:probe"
        self.holders = f"{prefix}:{{here}}:holders"
        self.memory = f"{prefix}:{{here}}:memory"
        self.holder = f"{prefix}:{{here}}:holder:"  #: and its name

    def announcements(self, channel: str) -> str:
        """Return the Redis channel on which the events of a channel are announced."""
        return f"{self._prefix}:{{{channel}}}{self._suffix}"

    def keys(self, channel: str, keys: Iterable[str] = ()) -> list[str]:
        """Return the keys of a channel, in the order in which the scripts take them.

        :param keys: of events.
        """
        begin = f"{self._prefix}:{{{channel}}}"
        return [f"{begin}:at", f"{begin}:log", *(f"{begin}:key:{key}" for key in keys)]

    def members(self, channel: str, holder: str = "") -> list[str]:
        """Return the keys of a channel's members: of all, and of one holder."""
        begin = f"{self._prefix}:{{{channel}}}:who"
        return [begin, f"{begin}:{holder}"]

    def channel(self, announcements: bytes) -> str:
        """Return the channel whose events are announced there."""
        return announcements.decode()[len(self._prefix) + 2 : -len(self._suffix) - 1]


def publish_arguments(
    publications: Sequence[Publication], announced: str, known: KnownEvent = UNKNOWN, durable: str = ""
) -> list[Any]:
    """Return the arguments of :data:`.PUBLISH`.

    :param publications: of one channel.
    :param known: the newest event that this process knows of.
    :param durable: ``1`` where Redis loses nothing by a restart, ``0`` where it may; empty where that is not known yet.
    """
    events: list[Any] = []
    epochs = 2
    for _, frame, bounds, key, run in publications:
        name = b"" if frame.name is None else b"=" + frame.name.encode()
        epochs += frame.is_end
        events += [frame.payload, name, *bounds_arguments(bounds), run or "", 0 if key is None else 1]
    return [new_epochs(epochs), announced, durable, *_known_arguments(known), *events]


def read_arguments(announced: str, known: KnownEvent = UNKNOWN) -> list[Any]:
    """Return the first arguments of all other scripts that read a channel.

    :param known: as for :func:`publish_arguments`.
    """
    return [new_epochs(3), announced, *_known_arguments(known)]


@lru_cache(maxsize=256)
def bounds_arguments(bounds: Bounds | None) -> tuple[Any, Any]:
    """Return bounds as scripts take them, None as well."""
    return ("", "") if bounds is None else (bounds.events, milliseconds(bounds.seconds))


def _known_arguments(known: KnownEvent) -> tuple[Any, ...]:
    epoch, offset, at_ms, is_sure = known
    return epoch, offset, at_ms, int(is_sure)


def read_announcement(data: bytes) -> Announcement:
    """Parse an announcement.

    :raises ValueError: where it is none.
    """
    head, _, rest = data.partition(b"\n")
    epoch, offset, now, events, ms, length, *_ = head.split(b" ")
    name, body = rest[: int(length)], rest[int(length) :]
    return Announcement(epoch.decode(), int(offset), int(now), _bounds(events, ms), _frame(name, body))


def read_lookup(answer: list[Any]) -> Lookup:
    """Parse the answer of :data:`.LOOK_UP`.

    :raises ValueError: where the keys hold something else.
    """
    epoch, newest, count, ms, last, now, entries, former, first, is_complete, until = answer
    bounds = _bounds(count, ms)
    events = []
    for entry_id, fields in entries:
        (_, body), (_, name), (_, at), *_ = zip(fields[::2], fields[1::2], strict=True)
        offset = int(entry_id.split(b"-")[0])
        events.append(Announcement(epoch.decode(), offset, int(at), bounds, _frame(name, body)))
    ends = [each.partition(":") for each in former.decode().split()]
    positions = [Position(at, int(end)) for at, _, end in ends]
    state = int(first), bool(is_complete), int(until)
    return Lookup(epoch.decode(), int(newest), int(last), int(now), events, positions, *state)


def member_arguments(change: MemberChange) -> list[Any]:
    """Return the arguments of :data:`.TELL` that follow those of all scripts that read a channel."""
    flags = int(change.is_all), int(change.is_quiet)
    come, gone = ([json.dumps(each) for each in some] for some in (change.come, change.gone))
    return [*bounds_arguments(change.bounds), *flags, len(come), *come, *gone]


def read_state(answer: list[Any]) -> ChannelState:
    """Parse the answer of :data:`.STATE`.

    :raises ValueError: where the keys hold something else.
    """
    epoch, newest, oldest, first, is_complete, has_run = answer
    return ChannelState(
        epoch.decode(), int(newest), max(int(oldest), int(first)), bool(is_complete), has_run=bool(has_run)
    )


def read_time(answer: list[Any]) -> int:
    """Return the time of an answer of :data:`.LOOK_UP`, in milliseconds, by the clock of Redis."""
    return int(answer[5])


def read_bounds(text: bytes) -> Bounds | None:
    """Parse the bounds that :data:`.PUBLISH` returns; None where it returns none."""
    return _bounds(*text.split(b" ")) if text else None


def read_processes(answer: list[Any]) -> list[dict[str, Any]]:
    """Parse the answer of :data:`.PROCESSES`."""
    return [read_process(*each) for each in answer]


def read_process(name: bytes, left_ms: bytes, fields: list[bytes]) -> dict[str, Any]:
    """Parse the report of a process; only its channels where the rest cannot be read.

    :param left_ms: for how long the report still holds.
    """
    report = {field.decode(errors="replace"): value for field, value in zip(fields[::2], fields[1::2], strict=True)}
    about: Any = None
    with suppress(ValueError):
        about = json.loads(report.pop(ABOUT, b"{}"))
    about = about if isinstance(about, dict) else {}
    channels = {
        channel: int(count)
        for channel, count in sorted(report.items())
        if count.isdigit() and not channel.startswith("!")
    }
    age = max(0.0, PRESENCE_SECONDS - int(left_ms) / 1000)
    return {**about, "id": name.decode(), "age": round(age, 3), "channels": channels}


def milliseconds(seconds: float) -> int:
    """Return seconds as scripts take them: 0 stands for no limit."""
    return min(max(round(seconds * 1000), 1), LONGEST_MS) if seconds else 0


@lru_cache(maxsize=256)
def _bounds(events: bytes, ms: bytes) -> Bounds:
    return Bounds(int(events), int(ms) / 1000)


def _frame(name: bytes, body: bytes) -> Frame:
    return Frame(body, name[1:].decode() if name else None)
