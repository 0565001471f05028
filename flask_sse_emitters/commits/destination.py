"""Where events go once their transaction has committed, and what is said of those that get nowhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from ..brokers import Broker, Publication, Published
from ..brokers.event_log import Bounds
from ..brokers.outbox import Outbox
from ..channels.publishing import PublishCounts
from ..config.settings import Settings

log = logging.getLogger("flask_sse_emitters.commits")


class Destination(Protocol):
    """An app's channels, or those of a publisher."""

    broker: Broker
    settings: Settings

    #: Whether it may start a thread to publish what lies in an outbox.
    has_background: bool

    publish_counts: PublishCounts

    def check_open(self) -> None:
        """Check that it can still publish.

        :raises RuntimeError: where it cannot.
        """

    def bounds(self, name: str) -> Bounds | None:
        """Return how much is kept of a channel; None leaves that as it is."""

    def send(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish all in one step. May wait for the broker, within limits."""


class Entry(NamedTuple):
    """What is to happen with an event once its transaction has committed."""

    destination: Destination
    publication: Publication
    outbox: Outbox | None  #: it lies there


def publish_committed(entries: Sequence[Entry]) -> None:
    """Publish events whose transaction has committed, in their order, those of one destination in one step.

    Errors are logged: the caller's commit has succeeded.
    """
    sent: dict[Destination, list[Publication]] = {}
    drained: dict[Destination, tuple[Outbox, list[str]]] = {}
    for destination, publication, outbox in entries:
        if outbox is None:
            sent.setdefault(destination, []).append(publication)
        else:
            drained.setdefault(destination, (outbox, []))[1].append(publication.channel)
    for destination, (outbox, channels) in drained.items():
        destination.publish_counts.note_committed(len(channels))
        _drain(destination, outbox, dict.fromkeys(channels))
    for destination, publications in sent.items():
        _send(destination, publications)


def _drain(destination: Destination, outbox: Outbox, channels: Iterable[str]) -> None:
    try:
        if destination.has_background:
            outbox.drain_soon(channels)
        else:
            outbox.drain(channels)
    except Exception as error:
        log.warning("%s; what was committed is published by a process that listens, once it can", error)


def _send(destination: Destination, publications: Sequence[Publication]) -> None:
    try:
        results = destination.send(publications)
    except Exception as error:
        if isinstance(error, NotImplementedError) and len(publications) > 1:  # a broker that takes one event at a time
            for publication in publications:
                _send(destination, [publication])
            return
        log.exception("a transaction has committed, and its events were not published: %s", _channels(publications))
        return
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        log.error(
            "a transaction has committed, and %d of its %d events failed: %s (%s)",
            len(errors),
            len(results),
            errors[0],
            _channels(publications),
        )


def _channels(publications: Sequence[Publication]) -> str:
    names = list(dict.fromkeys(publication.channel for publication in publications))
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
