"""Events on their way to the broker: encoded, alone or several in one step, and with the end of their channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from ..brokers import Broker, Publication, Published
from ..brokers.event_log import Bounds
from ..config.settings import Settings
from ..errors import BrokerUnavailable, InvalidEvent, PublishFailed
from ..runtime.locks import native_lock
from ..types import PublishFigures
from ..wire.event import PLAIN_TYPES, Event, as_event, is_made
from ..wire.frame import CHANNEL_END, END, Frame, make_frame
from .names import check_name
from .replay.gap import GAP

#: The names that no other event of a channel has, and what they tell clients.
_KEPT_NAMES = {GAP: "that they have missed some", END: "that there will be no more"}


def with_end(publication: Publication) -> list[Publication]:
    """Return the publication of an event, and of the end of its channel after it."""
    key = None if publication.key is None else f"{END} {publication.key}"  # repeated, it must not end what came since
    return [publication, publication._replace(frame=CHANNEL_END, key=key)]


def publications_of(
    events: Iterable[tuple[str, Any]], settings: Settings, bounds: Callable[[str], Bounds | None]
) -> list[Publication]:
    """Return the publications of several events.

    :param events: the channel of each, and an event, a builder's, or data.
    :param bounds: returns how much is kept of a channel.
    :raises InvalidChannel: where one has no valid channel, and :class:`.InvalidEvent` where one cannot be published.
    """
    return [
        Publication(name, encode_for_channel(data, None, None, settings), bounds(name))
        for name, data in ((check_name(channel), data) for channel, data in events)
    ]


def publish_on(broker: Broker, publications: Sequence[Publication]) -> list[Published | Exception]:
    """Publish all in one step: see :meth:`.Broker.publish_many`."""
    if len(publications) != 1 or publications[0].run is not None:
        return broker.publish_many(publications) if publications else []
    [(channel, frame, bounds, key, _)] = publications
    try:
        return [broker.publish(channel, frame, bounds, key)]
    except BrokerUnavailable as error:
        return [error]


def id_of_first(results: Sequence[Published | Exception]) -> str:
    """Return the id of the first event, where all that was to be published in that step was."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    first = results[0]
    assert isinstance(first, Published)
    return first.id


def ids_of_all(results: Sequence[Published | Exception]) -> list[str]:
    """Return the ids of all events.

    :raises PublishFailed: where some were not published.
    """
    given = [each.id if isinstance(each, Published) else each for each in results]
    ids = [each for each in given if isinstance(each, str)]
    if len(ids) < len(given):
        raise PublishFailed(given)
    return ids


def encode_for_channel(data: Any, event: str | None, retry: int | None, settings: Settings) -> Frame:
    """Encode an event for the broker, which gives it its id.

    :param data: an :class:`Event` or a builder's, without an id; or the data of one.
    :param event: its name; None is ``"message"``.
    :param retry: milliseconds until clients reconnect from now on.
    :raises InvalidEvent: where the event cannot be written, has an id of its own, or has a name that is kept.
    """
    if retry is None and type(data) in PLAIN_TYPES and (event is None or type(event) is str):
        given, own, name = data, event, event
    elif not is_made(data):
        given, own, name = (made := Event(data, event=event, retry=retry)), None, made.event
    else:
        given, own, name = (made := as_event(data)), None, made.event
        if (made.id, event, retry) != (None, None, None):
            raise InvalidEvent(
                "an Event goes into a channel as it is, and gets its id there: give no id, event or retry with it"
            )
    if name in _KEPT_NAMES:
        raise InvalidEvent(
            f"the name {name!r} is kept for the event that tells clients {_KEPT_NAMES[name]}: take another one"
        )
    return make_frame(given, settings.dumps, settings.max_event_bytes, own)


class PublishedFigures(TypedDict):
    """The part of :class:`.Figures` that is about publishing."""

    published: int
    publish: PublishFigures


class PublishCounts:
    """Counts what a process publishes. Any thread may call, and none waits."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._published = 0
        self._confirmed = self._failed = 0  # attempts
        self._seconds = 0.0  # that the confirmed ones took

    def note_attempt(self, events: int, seconds: float, *, has_failed: bool) -> None:
        """Count an attempt.

        :param events: so many are new.
        :param seconds: that it took.
        """
        with self._lock:
            self._published += events
            if has_failed:
                self._failed += 1
            else:
                self._confirmed += 1
                self._seconds += seconds

    def note_committed(self, events: int) -> None:
        """Count events of a transaction that has committed, whichever process gives them their ids."""
        with self._lock:
            self._published += events

    def read(self) -> PublishedFigures:
        """Return them as ``sse.stats()`` has them."""
        with self._lock:
            attempts: PublishFigures = {"count": self._confirmed, "seconds": self._seconds, "failed": self._failed}
            return {"published": self._published, "publish": attempts}
