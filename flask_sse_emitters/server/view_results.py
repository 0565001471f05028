"""Emitters as results of views: the response that a returned emitter becomes, and the end of those never returned.

The client of a stream that would be over for good gets a 204 in place of it: that stops an ``EventSource``.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request

from ..broadcast.emitters import SseEmitters
from ..channels.channel import Channel
from ..config.context import last_event_id, take_made_in_request
from ..errors import CloseReason
from ..streams.emitter import SseEmitter, stream_of
from ..wire.frame import END
from .probe import ENVIRON_KEY, add_check_header
from .response import HEADERS


def accept_emitters(app: Flask) -> None:
    """Let the app's views return emitters, which Flask has no hook for: this replaces ``app.make_response``."""
    make_response = app.make_response

    def make_response_of_emitter(rv: Any) -> Response:
        return make_response(_respond_for(rv))

    app.make_response = make_response_of_emitter  # type: ignore[method-assign]
    app.teardown_request(_end_failed)


def _respond_for(rv: Any) -> Any:
    """Return a view's result, with the response of an emitter in its place: bare, or the first of a tuple."""
    if isinstance(rv, Channel):
        raise TypeError(f"a view returns sse.channel({rv.name!r}).subscribe(), a stream of the channel, and not {rv!r}")
    if isinstance(rv, SseEmitters):
        raise TypeError("a view returns the emitter that it has added to the list, as add() does, and not the list")
    if isinstance(rv, SseEmitter):
        return rv.response()
    if isinstance(rv, tuple) and rv and isinstance(rv[0], SseEmitter):
        is_over = is_needless(rv[0])
        rest = [each for each in rv[1:] if not (is_over and isinstance(each, int | str))]  # without the status
        return (rv[0].response(), *rest)
    return rv


def is_needless(emitter: SseEmitter) -> bool:
    """Return whether the client has all that there will ever be: its channels, or its stream, are over for good."""
    stream = stream_of(emitter)
    requested = last_event_id() if stream.last_event_id is None else stream.last_event_id
    return stream.outgoing.is_needless or requested == END


def answer_needless(emitter: SseEmitter, headers: Any) -> Response:
    """Answer a client that has all that there will ever be: 204, which has a browser stop."""
    stream_of(emitter).end(CloseReason.COMPLETED, pending="drop")
    response = Response(status=204, headers={"Cache-Control": HEADERS["Cache-Control"]})
    response.headers.update(headers or {})
    response.headers.pop("Content-Type", None)
    if ENVIRON_KEY in request.environ:
        add_check_header(emitter, request.environ, response.headers)
    return response


def _end_failed(error: BaseException | None) -> None:
    """End the emitters of a request that failed: no client will get them."""
    emitters = take_made_in_request()
    if error is not None:
        for emitter in emitters:
            emitter.complete_with_error(error)
