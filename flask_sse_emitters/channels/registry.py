"""The channels of one app in this process: publishing to them, and subscribing clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

from .. import signals
from ..brokers import Broker
from ..brokers.event_log import Bounds
from ..config.settings import CHANCE, Duration, Settings
from ..errors import BrokerUnavailable, InvalidEvent
from ..runtime.fork import reset_after_fork
from ..runtime.gevent_loop import yield_if_due
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER
from ..streams.emitter import SseEmitter, stream_of
from ..streams.registry.identity import Reader
from ..streams.registry.limits import Limit
from ..streams.registry.open_streams import StreamRegistry
from ..streams.stream import Stream
from ..wire.event import Event, EventBuilder, as_event
from ..wire.frame import Frame, make_frame
from .names import check_key
from .options import OptionTable
from .process_subscription import ProcessSubscription
from .replay.gap import GAP
from .replay.machine import Replay
from .replay.pages import PageCache

#: ``SSE_TIMEOUT`` varies by this part of it, so that clients who came together do not leave together.
LIFETIME_SPREAD = 0.1


class Channels:
    """The channels of one app, in this process. Every method may be called from any thread.

    :param options: of its channels.
    :param streams: the open streams of the app.
    :param app: the sender of signals.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        options: OptionTable,
        streams: StreamRegistry,
        app: Any = None,
    ) -> None:
        self._app = app
        self.broker = broker
        #: Called before the process subscribes to a channel.
        self.before_subscribing: Callable[[], object] = lambda: None
        self._settings = settings
        self._options = options
        self._streams = streams
        self._is_closed = False
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        for subscription in getattr(self, "_subscriptions", {}).values():
            subscription.reset()
        self._lock = native_lock()
        self.published = 0  #: events, by this process
        self._confirmed = self._failed = 0  # attempts to publish
        self._seconds = 0.0  # that the confirmed ones took
        self._pages = PageCache()
        # Each is kept while it has clients, or is in use.
        self._subscriptions: WeakValueDictionary[str, ProcessSubscription] = WeakValueDictionary()
        self._limits: WeakValueDictionary[str, Limit] = WeakValueDictionary()  # each while a stream counts for it

    def subscription(self, name: str) -> ProcessSubscription:
        """Return the list of a channel's clients in this process."""
        subscription = self._subscriptions.get(name)
        if subscription is None:
            new = ProcessSubscription(name, self.broker, self._settings, lambda: self.before_subscribing())
            with self._lock:
                subscription = self._subscriptions.setdefault(name, new)
        return subscription

    def publish(self, name: str, data: Any, event: str | None, retry: int | None, key: str | None) -> str:
        """Publish an event, and return its id: see :meth:`.SSE.publish`. May wait for the broker, within limits."""
        self.check_open()
        settings = self._settings
        key = check_key(key)
        frame = encode_for_channel(data, event, retry, settings)
        bounds = self._bounds(name)
        began = time.perf_counter()
        try:
            event_id, is_new = self.broker.publish(name, frame, bounds, key)
        except BrokerUnavailable:
            with self._lock:
                self._failed += 1
            raise
        seconds = time.perf_counter() - began
        with self._lock:
            self.published += is_new
            self._confirmed += 1
            self._seconds += seconds
            subscription = self._subscriptions.get(name)
        if is_new and signals.event_published.receivers:
            about = {"channel": name, "id": event_id, "event": frame.name, "size": len(frame.payload)}
            signals.send(signals.event_published, self._app, seconds=seconds, **about)
        if subscription is None:
            yield_if_due()
        else:
            subscription.wait_for_room()
        return event_id

    def close(self) -> None:
        """Close the broker for good. Idempotent; may wait a second."""
        self._is_closed = True
        self.broker.close()

    def check_open(self) -> None:
        """Check that :meth:`close` has not been called.

        :raises RuntimeError: where it has.
        """
        if self._is_closed:
            raise RuntimeError("this SSE is closed, and publishes nothing any more: do that before sse.close()")

    def subscribe(
        self,
        names: Sequence[str],
        timeout: Duration | None = None,
        last_event_id: str | None = None,
        reader: Reader | None = None,
        seconds: float | None = None,
        **given: Any,
    ) -> SseEmitter:
        """Open a new client's stream of these channels. Never waits for the broker.

        :param last_event_id: None takes what the current request has.
        :param reader: the reader of the stream, where that is known.
        :param seconds: after so many it ends in any case.
        :param given: further arguments of its :class:`.SseEmitter`.
        """
        if last_event_id is not None and not isinstance(last_event_id, str):
            raise TypeError(f"last_event_id is a str, as the client sent it, not {last_event_id!r}")
        emitter = SseEmitter(timeout, **given)
        stream = stream_of(emitter)
        if timeout is None:
            stream.deadlines.lifetime_part = CHANCE.uniform(1 - LIFETIME_SPREAD, 1 + LIFETIME_SPREAD)
        if last_event_id is not None:
            stream.last_event_id = last_event_id
        if seconds is not None:
            stream.end_by(SCHEDULER.clock() + seconds)
        if reader is not None:
            stream.reader = reader
            self._streams.enlist(stream)
        subscriptions = [self.subscription(name) for name in names]
        limits = tuple(limit for name in names if (limit := self._limit(name)) is not None)
        if limits:
            stream.limits = limits
        Replay(emitter, subscriptions, emitter.last_event_id, self._pages).begin()
        return emitter

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many clients each channel that has any has here, and how many events it has had for them."""
        every = self._all_subscriptions()
        found = sorted((each.name, len(each.members), each.delivered) for each in every if len(each.members))
        return {
            "channels": {name: clients for name, clients, _ in found},
            "events": {name: events for name, _, events in found},
        }

    def publish_counts(self) -> dict[str, Any]:
        """Return how many events this process has published, and how long that took."""
        with self._lock:
            publish = {"count": self._confirmed, "seconds": self._seconds, "failed": self._failed}
            return {"published": self.published, "publish": publish}

    def streams(self, name: str | None) -> Iterator[Stream]:
        """Iterate over the streams of one channel in this process, or of all channels; one may come more than once."""
        if name is None:
            subscriptions = list(self._all_subscriptions())
        else:
            subscription = self._subscriptions.get(name)
            subscriptions = [] if subscription is None else [subscription]
        for subscription in subscriptions:
            for member in subscription.members:
                yield member.stream

    def _all_subscriptions(self) -> Iterator[ProcessSubscription]:
        with self._lock:
            references = self._subscriptions.valuerefs()
        return (found for reference in references if (found := reference()) is not None)

    def _bounds(self, name: str) -> Bounds:
        """Return how much is kept of a channel."""
        settings, options = self._settings, self._options.of(name)
        history = settings.history if options.history is None else options.history
        return Bounds(history, settings.history_seconds if options.history_seconds is None else options.history_seconds)

    def _limit(self, name: str) -> Limit | None:
        maximum = self._options.of(name).max_clients
        if maximum is None:
            return None
        new = Limit(f"max_clients={maximum} of the channel {name!r}", maximum)
        with self._lock:
            return self._limits.setdefault(name, new)


def encode_for_channel(data: Any, event: str | None, retry: int | None, settings: Settings) -> Frame:
    """Encode an event for the broker, which gives it its id.

    :param data: an :class:`Event` or a builder's, without an id; or the data of one.
    :param event: its name; None is ``"message"``.
    :param retry: milliseconds until clients reconnect from now on.
    :raises InvalidEvent: where the event cannot be written, has an id of its own, or has the name of a gap.
    """
    if isinstance(data, Event | EventBuilder):
        given = as_event(data)
        if (given.id, event, retry) != (None, None, None):
            raise InvalidEvent(
                "an Event goes into a channel as it is, and gets its id there: give no id, event or retry with it"
            )
    else:
        given = Event(data, event=event, retry=retry)
    if given.event == GAP:
        raise InvalidEvent(
            f"the name {GAP!r} is kept for the event that tells clients that they have missed some: take another one"
        )
    return make_frame(given, settings.dumps, settings.max_event_bytes)
