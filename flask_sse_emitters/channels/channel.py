"""Channels: names under which events are published, kept, and read by any number of clients."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, overload
from urllib.parse import quote
from weakref import WeakValueDictionary

from .. import signals
from ..broadcast.emitters import SseEmitters
from ..brokers import Broker
from ..brokers.event_log import Bounds
from ..config.settings import CHANCE, Duration, Settings
from ..errors import BrokerUnavailable, InvalidChannel, InvalidEvent
from ..runtime.fork import reset_after_fork
from ..runtime.gevent_loop import yield_if_due
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER
from ..streams.emitter import SseEmitter, stream_of
from ..streams.registry.identity import Reader, check_identity
from ..streams.registry.limits import Limit
from ..streams.registry.open_streams import StreamRegistry
from ..streams.stream import Stream
from ..wire.event import Event, EventBuilder, as_event, plain_text
from ..wire.frame import Frame, make_frame
from .replay import GAP, Pages, Replay
from .subscription import ChannelEmitters, Feed

#: One stream carries so many at most.
MOST_CHANNELS = 50

#: ``SSE_TIMEOUT`` is spread by this part of it, so that clients who came together do not leave together.
SPREAD = 0.1

#: What clients call the channel that is theirs alone. Its real name begins so, as no other does.
OWN = "~"

#: Stands for an argument that was left out, where None means something else.
UNSAID = object()

_NAME = re.compile(r"[A-Za-z0-9._\-:/@]{1,200}", re.ASCII)


def check_name(name: object) -> str:
    """Return the name itself, as a plain str.

    :raises InvalidChannel: where it is none.
    """
    text = plain_text(name) if isinstance(name, str) else None
    if text is None or not _NAME.fullmatch(text):
        shown = repr(name) if len(str(name)) <= 220 else f"one of {len(str(name))} characters"
        own = "; a reader's own channel is asked for as '~' alone, and published to with publish_to(identity, ...)"
        raise InvalidChannel(
            f"a channel's name has 1 to 200 ASCII letters, digits and . _ - : / @, unlike {shown}"
            + (own if str(name).startswith(OWN) else "")
        )
    return text


def private_name(identity: str) -> str:
    """The name of the channel that this identity alone may read.

    :raises TypeError: where it is no str.
    :raises ValueError: where it is none that can be used.
    """
    text = check_identity(identity)
    quoted = quote(text, safe="@:+")
    return OWN + (quoted if len(quoted) < 200 else "!" + sha256(text.encode()).hexdigest())


def name_for_operator(text: str) -> str:
    """A channel's name, or ``~`` and an identity: for those who may read and publish everything.

    :raises InvalidChannel: where it is neither.
    """
    if not text.startswith(OWN):
        return check_name(text)
    try:
        return private_name(text.removeprefix(OWN))
    except ValueError as error:
        raise InvalidChannel(str(error)) from error


def check_key(key: object) -> str | None:
    """Return the key itself, as a plain str; None where there is none.

    :raises TypeError: where it is no str.
    :raises InvalidEvent: where it cannot be written.
    """
    if key is None:
        return None
    if not isinstance(key, str):
        raise TypeError(f"key is a str, not {key!r}")
    text = plain_text(key)
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise InvalidEvent(f"key holds a lone surrogate, which cannot be written as UTF-8: {text!r}")
    return text


def frame_to_publish(data: Any, event: str | None, retry: int | None, settings: Settings) -> Frame:
    """Encode what goes to the broker, of an app or of a :class:`.Publisher`.

    :raises InvalidEvent: where the event cannot be written, has an id of its own, or is named as a gap is.
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


class Options:
    """What was said of a channel. None where nothing was."""

    def __init__(self) -> None:
        self.public: bool | None = None
        self.history: int | None = None
        self.max_clients: int | None = None

    def say(self, name: str, said: Mapping[str, Any]) -> None:
        """Note what is said of the channel of this name, by option.

        :raises ValueError: where it contradicts what was said before; then nothing is noted.
        """
        for option, value in said.items():
            before = getattr(self, option)
            if before is not None and before != value:
                raise ValueError(
                    f"{option}={value!r} contradicts sse.channel({name!r}, {option}={before!r}), which was said before "
                    "and holds for good: say it in one place"
                )
        for option, value in said.items():
            setattr(self, option, value)


class Channels:
    """The channels of one app, in this process.

    :param options: by the channels' names.
    :param streams: those of the app.
    :param app: sends the signals.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        options: dict[str, Options],
        streams: StreamRegistry,
        app: Any = None,
    ) -> None:
        self._app = app
        self.broker = broker
        #: Is called before the first subscriber of a channel is enlisted.
        self.before_subscribing: Callable[[], object] = lambda: None
        self._settings = settings
        self._options = options
        self._streams = streams
        self._is_closed = False
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        for feed in getattr(self, "_feeds", {}).values():
            feed._reset()
        self._lock = native_lock()
        self.published = 0  #: events, by this process
        self._confirmed = self._failed = 0  # attempts to publish
        self._seconds = 0.0  # that were spent in those that were confirmed
        self._pages = Pages()
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()  # while somebody listens, or holds it
        self._limits: dict[str, Limit] = {}

    def feed(self, name: str) -> Feed:
        """The list of a channel's clients."""
        feed = self._feeds.get(name)
        if feed is None:
            new = Feed(name, self.broker, self._settings, lambda: self.before_subscribing())
            with self._lock:
                feed = self._feeds.setdefault(name, new)
        return feed

    def publish(self, name: str, data: Any, event: str | None, retry: int | None, key: str | None) -> str:
        self.check_open()
        settings = self._settings
        key = check_key(key)
        frame = frame_to_publish(data, event, retry, settings)
        options = self._options.get(name)
        history = settings.history if options is None or options.history is None else options.history
        began = time.perf_counter()
        try:
            event_id, is_new = self.broker.publish(name, frame, Bounds(history, settings.history_seconds), key)
        except BrokerUnavailable:
            with self._lock:
                self._failed += 1
            raise
        seconds = time.perf_counter() - began
        with self._lock:
            self.published += is_new
            self._confirmed += 1
            self._seconds += seconds
            feed = self._feeds.get(name)
        if is_new and signals.event_published.receivers:
            said = {"channel": name, "id": event_id, "event": frame.name, "size": len(frame.payload)}
            signals.send(signals.event_published, self._app, seconds=seconds, **said)
        if feed is None:
            yield_if_due()
        else:
            feed.wait_for_room()
        return event_id

    def close(self) -> None:
        """Let go of the broker, for good. Idempotent; may wait a second."""
        self._is_closed = True
        self.broker.close()

    def check_open(self) -> None:
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
        """A new client's stream of these channels.

        :param reader: whose it is, where that is known.
        :param seconds: after so many it ends in any case.
        :param given: what else is said of its :class:`.SseEmitter`.
        """
        if last_event_id is not None and not isinstance(last_event_id, str):
            raise TypeError(f"last_event_id is a str, as the client sent it, not {last_event_id!r}")
        emitter = SseEmitter(timeout, **given)
        stream = stream_of(emitter)
        if timeout is None:
            stream.deadlines.lifetime_part = CHANCE.uniform(1 - SPREAD, 1 + SPREAD)
        if last_event_id is not None:
            stream.last_event_id = last_event_id
        if seconds is not None:
            stream.end_by(SCHEDULER.clock() + seconds)
        if reader is not None:
            stream.reader = reader
            self._streams.enlist(stream)
        feeds = [self.feed(name) for name in names]
        limits = tuple(limit for name in names if (limit := self._limit(name)) is not None)
        if limits:
            stream.limits = limits
        Replay(emitter, feeds, emitter.last_event_id, self._pages).begin()
        return emitter

    def counts(self) -> dict[str, dict[str, int]]:
        """The clients of every channel that has any here, and how many events it has had since."""
        feeds = sorted((feed.name, len(feed.members), feed.told) for feed in self._every_feed() if len(feed.members))
        return {
            "channels": {name: clients for name, clients, _ in feeds},
            "events": {name: told for name, _, told in feeds},
        }

    def publish_counts(self) -> dict[str, Any]:
        """What this process has published."""
        with self._lock:
            publish = {"count": self._confirmed, "seconds": self._seconds, "failed": self._failed}
            return {"published": self.published, "publish": publish}

    def members(self, name: str | None) -> Iterator[Stream]:
        if name is None:
            feeds = list(self._every_feed())
        else:
            feed = self._feeds.get(name)
            feeds = [] if feed is None else [feed]
        for feed in feeds:
            for member in feed.members:
                yield member.stream

    def _every_feed(self) -> Iterator[Feed]:
        with self._lock:
            references = self._feeds.valuerefs()
        return (feed for reference in references if (feed := reference()) is not None)

    def _limit(self, name: str) -> Limit | None:
        options = self._options.get(name)
        if options is None or options.max_clients is None:
            return None
        new = Limit(f"max_clients={options.max_clients} of the channel {name!r}", options.max_clients)
        return self._limits.setdefault(name, new)


class Channel:
    """A name under which events are published, and which any number of clients reads: ``sse.channel("news")``.

    Every method may be called from any thread, also outside a request.
    """

    def __init__(self, name: str, channels: Callable[[], Channels], identity: object = UNSAID) -> None:
        self.name = name
        self._channels = channels  # of the app that is at hand
        self._identity = identity  # of its only reader

    def publish(self, data: Any, *, event: str | None = None, retry: int | None = None, key: str | None = None) -> str:
        """Publish as :meth:`SSE.publish` does."""
        return self._channels().publish(self.name, data, event, retry, key)

    @overload
    def subscribe(self, *, timeout: Duration | None = ..., last_event_id: str | None = ...) -> SseEmitter: ...

    @overload
    def subscribe(
        self, *, timeout: Duration | None = ..., last_event_id: str | None = ..., identity: str
    ) -> SseEmitter: ...

    def subscribe(
        self, *, timeout: Duration | None = None, last_event_id: str | None = None, identity: object = UNSAID
    ) -> SseEmitter:
        """A new client's stream of this channel, for a view to return. The view decides who may read: no rule is asked.

        ::

            @app.get("/orders/stream")
            @login_required
            def stream():
                return sse.channel("orders").subscribe(identity=current_user.get_id())

        It begins after the event that the client received last, if it comes back, and else with the next one.

        :param timeout: the whole lifetime, seconds or a timedelta. None takes ``SSE_TIMEOUT``, spread by 10 %.
        :param last_event_id: None takes what the request says; ``""`` is none.
        :param identity: whose stream it is, for :meth:`SSE.disconnect` and the limit of each identity; 1 to 500
            characters. Left out, it is unknown, but for a stream of :meth:`SSE.private`, which is that reader's.
        :raises TypeError: where it is no str: None, say, because nobody is logged in.
        """
        if identity is UNSAID:
            identity = self._identity
        reader = None if identity is UNSAID else Reader((check_identity(identity),), (self.name,))
        return self._channels().subscribe([self.name], timeout, last_event_id, reader)

    @property
    def emitters(self) -> SseEmitters:
        """The list of its clients in this process.

        What is sent to it by hand is not kept, goes no further, and passes over clients that are still catching up.
        What is put in by hand gets what is published from when this process knows the channel: over Redis, a moment
        later.
        """
        return ChannelEmitters(self._channels().feed(self.name))

    def subscribers(self) -> int:
        """How many clients read it, in all processes that share the broker.

        Those of other processes as of a moment ago; those of a process that was killed for 12 seconds at most.

        :raises BrokerUnavailable: where the broker cannot be reached in ``SSE_PUBLISH_SECONDS``.
        """
        return len(self._channels().feed(self.name).members) + self._channels().broker.clients_elsewhere(self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
