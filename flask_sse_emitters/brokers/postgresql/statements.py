"""What this package asks of the database: statements, their parameters, and the parsing of their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from ...wire.frame import Frame
from ..base import ChannelState, Publication, Published, RunLost
from ..event_ids import Position
from ..event_log import Bounds
from ..listening.lookup import UNKNOWN, Announcement, KnownEvent, Lookup

PUBLISH = (
    "SELECT * FROM sse.publish_all(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::int[], %s::bytea[], "
    "%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])"
)
STATE = "SELECT * FROM sse.state(%s)"
LOOK_UP = "SELECT * FROM sse.look_up(%s::text[], %s::text[], %s::bigint[], %s::int)"
CHANGED = "SELECT sse.changed(%s::text[], %s::text[], %s::bigint[], %s::boolean[], %s::boolean[])"
START_RUN = "SELECT sse.start_run(%s, %s, %s::bigint, %s::bigint, %s, %s::bigint)"
RENEW_RUN = "SELECT sse.renew_run(%s, %s, %s::bigint)"
CANCEL_RUN = "SELECT sse.cancel_run(%s, %s, %s::bigint, %s::bigint, %s::bigint, %s::bigint)"
SWEEP = "SELECT * FROM sse.sweep()"
REPORT = "SELECT sse.report(%s, %s, %s::text[], %s::int[], %s::boolean)"
LEAVE = "SELECT sse.leave(%s)"
COUNT_CLIENTS = "SELECT sse.count_clients(%s, %s)"
LIST_PROCESSES = "SELECT * FROM sse.list_processes(%s)"
RENEW_MEMBERS = "SELECT * FROM sse.renew_members(%s, %s, %s::bigint, %s)"
TELL_MEMBERS = (
    "SELECT * FROM sse.tell_members(%s, %s, %s, %s::bigint, %s::bigint, %s::text[], %s::text[], %s, %s, %s::bigint, "
    "%s::bigint)"
)
LIST_MEMBERS = "SELECT * FROM sse.list_members(%s)"
FORGET_HOLDER = "DELETE FROM sse.holders WHERE holder = %s"
LISTEN = "LISTEN sse;"
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s::bigint)"
TRY_WRITE = "UPDATE sse.about SET version = version"

#: The columns of the outbox into which a transaction inserts an event: see :func:`outbox_row`.
OUTBOX_COLUMNS = ("channel", "body", "label", "max_events", "kept_ms", "key")

#: The longest time that events are kept for, a century, in milliseconds.
LONGEST_MS = 3_155_760_000_000


class Outcome(NamedTuple):
    """What has become of some publications."""

    results: list[Published | Exception]
    positions: dict[str, str]  #: of the channels in which something is new
    known: dict[str, KnownEvent]  #: the newest event of each channel
    other_bounds: dict[str, Bounds]  #: those that a channel had before, where they differ


def publish_parameters(groups: Mapping[str, Sequence[Publication]], known: Mapping[str, KnownEvent]) -> list[Any]:
    """Return the parameters of :data:`PUBLISH`.

    :param groups: the publications of each channel, by name; none where the channel is only to be put in order.
    """
    each = [publication for group in groups.values() for publication in group]
    starts = [1]
    for group in groups.values():
        starts.append(starts[-1] + len(group))
    bounds = [bounds_parameters(publication.bounds) for publication in each]
    newest = [known.get(name, UNKNOWN) for name in groups]
    return [
        list(groups),
        [known.epoch for known in newest],
        [known.offset for known in newest],
        [known.at_ms for known in newest],
        starts,
        [publication.frame.payload for publication in each],
        [publication.frame.name for publication in each],
        [events for events, _ in bounds],
        [ms for _, ms in bounds],
        [publication.key for publication in each],
        [publication.run for publication in each],
    ]


def read_outcome(rows: Sequence[Any], groups: Mapping[str, Sequence[Publication]]) -> Outcome:
    """Parse the answer of :data:`PUBLISH`: results stand in the order of the groups."""
    names = list(groups)
    channels = [name for name, group in groups.items() for _ in group]
    outcome = Outcome([], {}, {}, {})
    for place, event_id, ms, what, other in rows:
        if place < 0:
            name = names[-place - 1]
            outcome.known[name] = known_event(event_id, ms)
            if what == "new":
                outcome.positions[name] = event_id
            continue
        name = channels[place - 1]
        outcome.results.append(RunLost(name) if what == "lost" else Published(event_id, what == "new"))
        if other is not None:
            events, kept_ms = other.split()
            outcome.other_bounds[name] = Bounds(int(events), int(kept_ms) / 1000)
    return outcome


def known_event(event_id: str, ms: int) -> KnownEvent:
    """Return the newest event of a channel, by its id."""
    epoch, _, offset = event_id.partition("-")
    return KnownEvent(epoch, int(offset), ms, is_sure=True)


def outbox_row(publication: Publication) -> dict[str, Any]:
    """Return the row that stands for an event in the outbox, by :data:`OUTBOX_COLUMNS`."""
    channel, frame, bounds, key, _ = publication
    values = (channel, frame.payload, frame.name, *bounds_parameters(bounds), key)
    return dict(zip(OUTBOX_COLUMNS, values, strict=True))


def bounds_parameters(bounds: Bounds | None) -> tuple[int | None, int | None]:
    """Return bounds as statements take them, None as well."""
    return (None, None) if bounds is None else (min(bounds.events, LONGEST_MS), milliseconds(bounds.seconds))


def milliseconds(seconds: float) -> int:
    """Return seconds as statements take them: 0 stands for no limit."""
    return min(max(round(seconds * 1000), 1), LONGEST_MS) if seconds else 0


def known_parameters(known: KnownEvent) -> list[Any]:
    """Return the newest event that is known of a channel, as statements take it."""
    return [known.epoch, known.offset, known.at_ms]


class Found(NamedTuple):
    """What the database knows of a channel."""

    lookup: Lookup | None  #: None where there is no such channel
    touched_ms: int = 0  #: when it was last noted as used
    after_ms: int | None = None  #: when the event was published after which the others come; None where it is not kept


def read_lookups(rows: Sequence[Any], count: int) -> Iterator[Found]:
    """Parse the answer of :data:`LOOK_UP`: for each of so many channels, in their order."""
    by_place = {place: list(group) for place, group in groupby(rows, itemgetter(0))}
    for place in range(1, count + 1):
        group = by_place[place]
        _, epoch, newest, newest_ms, now_ms, most, kept_ms, former, first, is_complete, until, *rest = group[0]
        if epoch is None:
            yield Found(None)
            continue
        bounds = Bounds(most, kept_ms / 1000)
        events = [
            Announcement(epoch, number, at_ms, bounds, Frame(body, label))
            for *_, number, label, body, at_ms in group
            if number is not None
        ]
        lookup = Lookup(epoch, newest, newest_ms, now_ms, events, read_former(former), first, is_complete, until or 0)
        yield Found(lookup, *rest[:2])


def read_former(text: str) -> list[Position]:
    """Parse where epochs before the present one ended."""
    parts = [each.partition(":") for each in text.split()]
    return [Position(epoch, int(end)) for epoch, _, end in parts]


def read_state(row: Sequence[Any]) -> tuple[ChannelState, Lookup]:
    """Parse the answer of :data:`STATE`."""
    epoch, newest, newest_ms, now_ms, oldest, first, former, is_complete, until = row
    lookup = Lookup(epoch, newest, newest_ms, now_ms, [], read_former(former), first, is_complete, until or 0)
    oldest = max(oldest, first)
    return ChannelState(epoch, newest, oldest, is_complete, has_run=until is not None), lookup


def is_to_be_mended(lookup: Lookup, known: KnownEvent) -> bool:
    """Return whether the channel is not as it should be: its run is dead, or it lacks an event that is known of.

    As ``sse.mend`` and ``sse.open_channel`` see it.
    """
    if 0 < lookup.run_until_ms <= lookup.now_ms:
        return True
    if known.epoch == lookup.epoch:
        is_other = known.offset == lookup.newest and known.at_ms != lookup.newest_ms
        return known.offset > lookup.newest or (is_other and known.offset > 0)
    ends = [position.offset for position in lookup.former if position.epoch == known.epoch]
    if not ends:  # it was begun by somebody who did not know it
        return bool(known.epoch) and not lookup.newest
    return known.offset > ends[0]


def read_process(row: Sequence[Any]) -> dict[str, Any]:
    """Parse the report of a process."""
    name, text, age_ms, channels, counts = row
    about: Any = None
    with suppress(ValueError, TypeError):
        about = json.loads(text)
    about = about if isinstance(about, dict) else {}
    return {**about, "id": name, "age": age_ms / 1000, "channels": dict(zip(channels or (), counts or (), strict=True))}
