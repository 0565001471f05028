"""For the tests of your own app: what a browser would make of a response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from .decoder import EventDecoder, decode
from .event import Event

__all__ = ["EventDecoder", "decode", "read_events"]


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
    """
    events = getattr(response, _KEPT, None)
    if events is None:
        events = _events(response)
        with suppress(AttributeError):  # a bare iterable: what is read beyond the last event wanted is lost
            setattr(response, _KEPT, events)
    return [event for _, event in zip(range(n), events, strict=False)]


#: The attribute of a response that keeps what was read beyond the last event wanted.
_KEPT = "_sse_events"


def _events(response: Any) -> Iterator[Event]:
    decoder = EventDecoder()
    for chunk in _chunks(response):
        yield from decoder.feed(chunk)


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
