"""Helpers for the tests of your own app: read streams as a browser does, and see what your code has published."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .brokers import Start
from .brokers.event_ids import new_epoch
from .brokers.event_log import Bounds
from .channels.names import name_for_operator
from .errors import BrokerUnavailable
from .extension import SSE
from .types import StreamSource
from .wire.decoder import EventDecoder, decode
from .wire.event import Event
from .wire.frame import Frame, make_frame
from .writers.response_body import TEST_HOOK, ResponseBody

#: How long :func:`published` waits for a shared broker.
BROKER_SECONDS = 10.0

__all__ = ["EventDecoder", "OpenStream", "decode", "open_stream", "published", "read_events"]


def read_events(response: StreamSource, n: int) -> list[Event]:
    """Return the next events of a response, as a browser would dispatch them.

    ::

        with client.get("/connect") as response:
            assert read_events(response, 1) == [Event("connected!", event="connect")]

    Waits until there are that many, without a limit: set ``SSE_TIMEOUT`` in your tests, so that streams end. The next
    call continues where this one stopped. Close the response afterwards: until then its emitter is open, and in its
    lists.

    :param response: of Flask's test client, httpx (``client.stream``), requests (``stream=True``) or ``urllib``; or
        any iterable of bytes.
    :param n: how many events, from 0. There are fewer where the stream ends first.
    :raises BrokenPipeError: from the test client, where the stream was cut because too much was pending.
    """
    reader = _reader(response)
    while len(reader.events) < n and reader.read():
        pass
    return reader.take(n)


@contextmanager
def open_stream(client: FlaskClient, path: str, **options: Any) -> Iterator[OpenStream]:
    """Open a stream with Flask's test client, to be read without threads or sleeps.

    ::

        with open_stream(app.test_client(), "/events?channel=orders") as stream:
            sse.publish("orders", {"id": 7}, event="created")
            [event] = stream.ready()
            assert (event.event, event.data) == ("created", '{"id": 7}')

    :param options: as for ``client.get``: ``headers={"Last-Event-ID": ...}``, say.
    :raises AssertionError: where the response is no stream.
    """
    bodies: list[ResponseBody] = []
    overrides = {**options.pop("environ_overrides", {}), TEST_HOOK: bodies}
    response: TestResponse = client.get(path, environ_overrides=overrides, **options)
    with response:
        if not bodies:
            raise AssertionError(f"GET {path} did not answer with a stream: {response.status}, {response.content_type}")
        yield OpenStream(response, bodies[0])


class OpenStream:
    """An open stream: see :func:`open_stream`.

    :ivar response: the test client's.
    """

    def __init__(self, response: TestResponse, body: ResponseBody) -> None:
        self.response: TestResponse = response
        self._reader = _reader(response)
        self._body = body

    def ready(self) -> list[Event]:
        """Return all events that have been sent and not been read yet. Does not wait for more."""
        while (not self._reader.has_begun or self._body.try_fetch()) and self._reader.read():
            pass
        return self._reader.take(len(self._reader.events))


@contextmanager
def published(sse: SSE, *channels: str) -> Iterator[list[Event]]:
    """Collect what is published to these channels within the block, as clients would get it.

    ::

        with published(sse, "orders") as events:
            client.post("/orders")
        assert [event.event for event in events] == ["created"]

    The list is complete after the block. It has the events in the order in which they were published.

    :param channels: one or more; ``~ann`` is what is published to the identity ``ann``.
    :raises BrokerUnavailable: where a shared broker does not answer.
    """
    if not channels:
        raise TypeError("published() takes the SSE and the names of one channel or more")
    broker = sse.find_state().channels.broker
    events: list[Event] = []
    collectors = {name_for_operator(channel): _Collector(events) for channel in channels}
    mark = f"published/{new_epoch()}{new_epoch()}"
    collectors[mark] = _Collector([])
    try:
        for channel, collector in collectors.items():
            if broker.subscribe(channel, collector) is None:
                _await(collector.is_started)
        yield events
        # First: one channel after the other would bring its last events before earlier ones of the next.
        broker.publish(mark, make_frame("all before", str, 100), Bounds(0, BROKER_SECONDS))
        _await(collectors[mark].has_some)
        for channel in collectors:
            is_synced = threading.Event()
            broker.look_again(channel, is_synced.set)
            _await(is_synced)
    finally:
        for channel, collector in collectors.items():
            broker.unsubscribe(channel, collector)


class _Collector:
    """A listener that decodes what arrives, and counts as no client."""

    clients = 0

    def __init__(self, events: list[Event]) -> None:
        self.is_started = threading.Event()
        self.has_some = threading.Event()
        self._events = events

    def started(self, start: Start) -> None:  # noqa: ARG002 - only what arrives counts
        self.is_started.set()

    def arrived(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._events += decode(frame.payload)
        self.has_some.set()


def _await(event: threading.Event) -> None:
    if not event.wait(BROKER_SECONDS):
        raise BrokerUnavailable(f"the broker did not answer for {BROKER_SECONDS:g} s: does it run at SSE_BROKER_URL?")


class _Reader:
    """Reads one response, and keeps the events that were not asked for yet."""

    def __init__(self, response: Any) -> None:
        self.events: deque[Event] = deque()
        self.has_begun = False
        self._chunks = iter(_chunks(response))
        self._decoder = EventDecoder()

    def read(self) -> bool:
        """Wait for the next bytes, and decode them; return False at the end."""
        self.has_begun = True
        chunk = next(self._chunks, None)
        if chunk is not None:
            self.events += self._decoder.feed(chunk)
        return chunk is not None

    def take(self, n: int) -> list[Event]:
        return [self.events.popleft() for _ in range(min(n, len(self.events)))]


#: The attribute of a response that holds its reader.
_READER = "_sse_reader"


def _reader(response: Any) -> _Reader:
    reader = getattr(response, _READER, None)
    if reader is None:
        reader = _Reader(response)
        with suppress(AttributeError):  # a bare iterable: events beyond those asked for are lost
            setattr(response, _READER, reader)
    return reader


def _chunks(response: Any) -> Iterable[bytes]:
    if hasattr(response, "iter_encoded"):  # Flask, Werkzeug
        return response.iter_encoded()  # type: ignore[no-any-return]
    if hasattr(response, "iter_bytes"):  # httpx
        return response.iter_bytes()  # type: ignore[no-any-return]
    if hasattr(response, "iter_content"):  # requests
        return response.iter_content(None)  # type: ignore[no-any-return]
    if hasattr(response, "read1"):  # http.client, urllib
        return iter(response.read1, b"")
    return response  # type: ignore[no-any-return]
