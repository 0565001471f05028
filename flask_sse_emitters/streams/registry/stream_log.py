"""The log of streams: whose they are, what they read, and how long. Records have it as fields, too."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...errors import CloseReason
from ..interfaces import Member

if TYPE_CHECKING:
    from ..machine import Machine

log = logging.getLogger("flask_sse_emitters.emitter")


def log_begin(stream: Machine, address: str | None) -> None:
    """Log that a stream is open, for ``DEBUG``.

    :param address: of the client; None where that is unknown.
    """
    if log.isEnabledFor(logging.DEBUG):
        channels, identity = _read_by(stream, ())
        log.debug(
            "a stream begins (channels=%s identity=%s address=%s)",
            ",".join(channels) or "-",
            identity or "-",
            address or "-",
            extra={"channels": channels, "identity": identity, "address": address},
        )


def log_end(stream: Machine, left: Iterable[Member], reason: CloseReason, error: BaseException | None) -> None:
    """Log how a stream ended: for ``DEBUG``, and one that was cut for being slow for ``INFO``.

    :param left: the places in lists that it had.
    """
    level = logging.INFO if reason is CloseReason.OVERFLOW else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    channels, identity = _read_by(stream, left)
    fields = {
        "channels": channels,
        "identity": identity,
        "seconds": round(stream.scheduler.clock() - stream.deadlines.born, 3),
        "events": stream.outgoing.given_events,
        "pending": stream.pending,
        "dropped": stream.outgoing.backlog.dropped,
        "reason": reason.value,
    }
    log.log(
        level,
        "a stream ended: %s (channels=%s identity=%s, after %.1f s, %d events, %d of them dropped)",
        error or reason.value,
        ",".join(channels) or "-",
        identity or "-",
        fields["seconds"],
        fields["events"],
        fields["dropped"],
        extra=fields,
    )


def _read_by(stream: Machine, left: Iterable[Member]) -> tuple[list[str], str | None]:
    """Return the channels that a stream reads, and for whom, as far as that is known."""
    if stream.reader is not None:
        return list(stream.reader.channels), next(iter(stream.reader.identities), None)
    names = (member.list.name for member in (*left, *stream.outgoing.members))
    return list(dict.fromkeys(name for name in names if name is not None)), None
