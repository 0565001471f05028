"""For the tests of your own app: what a browser would make of a response, and what your code has published."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from flask.testing import FlaskClient

from .brokers import Start
from .channels.channel import name_for_operator
from .errors import BrokerUnavailable
from .extension import SSE
from .wire.decoder import EventDecoder, decode
from .wire.event import Event
from .wire.frame import Frame
from .writers.response_body import TEST_HOOK, ResponseBody

#: How long a shared broker may take to say what there is.
BROKER_SECONDS = 10.0

__all__ = ["EventDecoder", "decode", "open_stream", "published", "read_events"]


def read_events(response: Any, n: int) -> list[Event]:
    """The next events of a response, as a browser would dispatch them.

    ::

        with client.get("/connect") as response:
            assert read_events(response, 1) == [Event("connected!", event="connect")]

    Waits until there are so many, however long that takes: set ``SSE_TIMEOUT`` in your tests, so that streams end. A
    further call goes on where this one stopped. Close the response in the end: until then its emitter is open, and in
    its lists.

    :param response: of Flask's test client, httpx (``client.stream``), requests (``stream=True``) or ``urllib``; or
        any iterable of bytes.
    :param n: how many, from 0. Fewer where the stream ends before.
    :raises BrokenPipeError: from the test client, where the stream was cut because too much was pending.
    """
    reader = _reader(response)
    while len(reader.events) < n and reader.read():
        pass
    return reader.take(n)


@contextmanager
def open_stream(client: FlaskClient, path: str, **options: Any) -> Iterator[OpenStream]:
    """A stream of Flask's test client, to be read without threads or sleeps: what is there is there at once.

    ::

        with open_stream(app.test_client(), "/events?channel=orders") as stream:
            sse.publish("orders", {"id": 7}, event="created")
            [event] = stream.ready()
            assert (event.event, event.data) == ("created", '{"id": 7}')

    :param options: as for ``client.get``: ``headers={"Last-Event-ID": ...}``, say.
    :raises AssertionError: where the answer is no stream.
    """
    witness: list[ResponseBody] = []
    overrides = {**options.pop("environ_overrides", {}), TEST_HOOK: witness}
    with client.get(path, environ_overrides=overrides, **options) as response:
        if not witness:
            raise AssertionError(f"GET {path} was answered by no stream: {response.status}, {response.content_type}")
        yield OpenStream(response, witness[0])


class OpenStream:
    """An answer that is a stream: see :func:`open_stream`.

    :ivar response: of the test client.
    """

    def __init__(self, response: Any, stream: ResponseBody) -> None:
        self.response = response
        self._reader = _reader(response)
        self._stream = stream

    def ready(self) -> list[Event]:
        """All events that are there and have not been read yet."""
        while (not self._reader.has_begun or self._stream.is_ready()) and self._reader.read():
            pass
        return self._reader.take(len(self._reader.events))


@contextmanager
def published(sse: SSE, *channels: str) -> Iterator[list[Event]]:
    """What is published to these channels meanwhile, as clients would get it.

    ::

        with published(sse, "orders") as events:
            client.post("/orders")
        assert [event.event for event in events] == ["created"]

    :param channels: one or more; ``~ann`` is what is published to the identity ``ann``. Their events are in the order
        in which they were published.
    """
    if not channels:
        raise TypeError("published() takes the SSE and the names of one channel or more")
    broker = sse.find_state().channels.broker
    events: list[Event] = []
    notes = {name_for_operator(channel): _Notes(events) for channel in channels}
    try:
        for channel, note in notes.items():
            if broker.subscribe(channel, note) is None:
                note.await_begin()
        yield events
        for channel in notes:
            told = threading.Event()
            broker.look_again(channel, told.set)
            _await(told)
    finally:
        for channel, note in notes.items():
            broker.unsubscribe(channel, note)


class _Notes:
    clients = 0

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self._begun = threading.Event()

    def await_begin(self) -> None:
        _await(self._begun)

    def started(self, start: Start) -> None:  # noqa: ARG002 - all that comes is new
        self._begun.set()

    def arrived(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._events += decode(frame.payload)


def _await(event: threading.Event) -> None:
    if not event.wait(BROKER_SECONDS):
        raise BrokerUnavailable(f"the broker did not answer for {BROKER_SECONDS:g} s: does it run at SSE_BROKER_URL?")


class _Reader:
    """Reads one response, and keeps what is beyond what was wanted."""

    def __init__(self, response: Any) -> None:
        self.events: deque[Event] = deque()
        self.has_begun = False
        self._chunks = iter(_chunks(response))
        self._decoder = EventDecoder()

    def read(self) -> bool:
        """Take the next bytes, and wait for them. False at the end."""
        self.has_begun = True
        chunk = next(self._chunks, None)
        if chunk is not None:
            self.events += self._decoder.feed(chunk)
        return chunk is not None

    def take(self, n: int) -> list[Event]:
        return [self.events.popleft() for _ in range(min(n, len(self.events)))]


#: The attribute of a response that keeps its reader.
_KEPT = "_sse_reader"


def _reader(response: Any) -> _Reader:
    reader = getattr(response, _KEPT, None)
    if reader is None:
        reader = _Reader(response)
        with suppress(AttributeError):  # a bare iterable: what is read beyond the last event wanted is lost
            setattr(response, _KEPT, reader)
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
