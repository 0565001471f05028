"""Channels: names under which events are published, kept, and read by any number of clients."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from .brokers import Broker
from .emitter import SseEmitter
from .errors import InvalidChannel, InvalidEvent
from .event import Event, EventBuilder, as_event
from .feed import Feed
from .frames import make_frame
from .history import Bounds
from .parking import shared_guard
from .replay import Pages, Replay
from .settings import Duration, Settings
from .streams import Streams

#: One stream carries so many at most.
MOST_CHANNELS = 50

#: ``SSE_TIMEOUT`` is spread by this part of it, so that clients who came together do not leave together.
SPREAD = 0.1

_NAME = re.compile(r"[A-Za-z0-9._\-:/@]{1,200}", re.ASCII)


def check_name(name: object) -> str:
    """The name itself.

    :raises InvalidChannel: where it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = repr(name) if len(str(name)) <= 220 else f"one of {len(str(name))} characters"
        raise InvalidChannel(f"a channel's name has 1 to 200 ASCII letters, digits and . _ - : / @, unlike {shown}")
    return name


class Options:
    """What was said of a channel. None where nothing was."""

    def __init__(self) -> None:
        self.public = False
        self.history: int | None = None
        self.max_clients: int | None = None


class Channels:
    """The channels of one app, in this process.

    :param options: by the channels' names.
    """

    def __init__(self, broker: Broker, settings: Settings, streams: Streams, options: dict[str, Options]) -> None:
        self.broker = broker
        self.published = 0  #: events, by this process
        self._settings = settings
        self._streams = streams
        self._options = options
        self._pages = Pages()
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()  # while somebody listens, or holds it
        self._guard = shared_guard()

    def feed(self, name: str) -> Feed:
        """The list of a channel's clients."""
        feed = self._feeds.get(name)
        if feed is None:
            new = Feed(name, self.broker, self._settings)
            with self._guard:
                feed = self._feeds.setdefault(name, new)
        return feed

    def publish(self, name: str, data: Any, event: str | None, retry: int | None, key: str | None) -> str:
        settings = self._settings
        if isinstance(data, Event | EventBuilder):
            given = as_event(data)
            if (given.id, event, retry) != (None, None, None):
                raise InvalidEvent(
                    "an Event goes into a channel as it is, and gets its id there: give no id, event or retry with it"
                )
        else:
            given = Event(data, event=event, retry=retry)
        frame = make_frame(given, settings.dumps, settings.max_event_bytes)
        history = self._option(name, "history")
        bounds = Bounds(settings.history if history is None else history, settings.history_seconds)
        event_id = self.broker.publish(name, frame, bounds, key)
        self.published += 1
        return event_id

    def subscribe(self, names: Sequence[str], timeout: Duration | None, last_event_id: str | None) -> SseEmitter:
        """A new client's stream of these channels."""
        if timeout is None and self._settings.timeout:
            timeout = self._settings.timeout * random.uniform(1 - SPREAD, 1 + SPREAD)
        emitter = SseEmitter(timeout)
        if last_event_id is not None:
            emitter._last_event_id = last_event_id or None
        feeds = [self.feed(name) for name in names]
        for name, feed in zip(names, feeds, strict=True):
            most = self._option(name, "max_clients")
            if most is not None and len(feed) >= most:
                self._streams.refuse(emitter, f"max_clients={most} of the channel {name!r}")
                return emitter
        if not self._streams.is_draining:
            Replay(emitter, feeds, emitter.last_event_id, self._pages).begin()
        return emitter

    def counts(self) -> dict[str, int]:
        """The clients of every channel that has any here."""
        return {name: len(feed) for name, feed in sorted(self._feeds.items()) if len(feed)}

    def _option(self, name: str, option: str) -> int | None:
        options = self._options.get(name)
        return None if options is None else getattr(options, option)


class Channel:
    """A name under which events are published, and which any number of clients reads: ``sse.channel("news")``.

    Every method may be called from any thread, also outside a request.
    """

    def __init__(self, name: str, channels: Callable[[], Channels]) -> None:
        self.name = name
        self._channels = channels  # of the app that is at hand

    def publish(self, data: Any, *, event: str | None = None, retry: int | None = None, key: str | None = None) -> str:
        """Publish as :meth:`SSE.publish` does."""
        return self._channels().publish(self.name, data, event, retry, key)

    def subscribe(self, *, timeout: Duration | None = None, last_event_id: str | None = None) -> SseEmitter:
        """A new client's stream of this channel, for a view to return.

        ::

            @app.get("/orders/stream")
            def stream():
                return sse.channel("orders").subscribe()

        It begins after the event that the client received last, if it comes back, and else with the next one.

        :param timeout: the whole lifetime, seconds or a timedelta. None takes ``SSE_TIMEOUT``, spread by 10 %.
        :param last_event_id: None takes what the request says; ``""`` is none.
        """
        return self._channels().subscribe([self.name], timeout, last_event_id)

    @property
    def emitters(self) -> Feed:
        """The list of its clients in this process. What is sent to it by hand is not kept, and goes no further."""
        return self._channels().feed(self.name)

    def subscribers(self) -> int:
        """How many clients read it, in all processes."""
        return len(self.emitters)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
