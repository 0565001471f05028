"""The event that tells a client that it has missed some for good."""

from __future__ import annotations

from collections.abc import Sequence

from ...brokers.event_ids import MAX_ID_LENGTH, read_ids
from ...brokers.event_log import Log
from ...wire.event import Event
from .cursor import Cursor

#: The name of that event; no other event of a channel has it.
GAP = "gap"


def encode_gap(requested: str, logs: Sequence[Log], cursor: Cursor) -> bytes:
    """Encode the event for one client, and the position after it.

    :param requested: the id that the client came with, or was at.
    :param logs: of the client's channels.
    :param cursor: where the client goes on.
    """
    known = read_ids(cursor.text(), len(logs)) or ()
    oldest = [str(log.position(at.offset + 1)) for log, at in zip(logs, known, strict=bool(known))]
    newest = [str(log.position(log.newest)) for log in logs]
    gap = {"requested": requested[:MAX_ID_LENGTH], "oldest": ",".join(oldest), "newest": ",".join(newest)}
    return Event(gap, event=GAP).encode() + cursor.encode()
