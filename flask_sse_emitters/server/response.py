"""The Flask response that carries an emitter's stream: its headers, its body, and how a view returns it.

The request ends before its stream begins, and releases its database session and all other resources: nothing here keeps
a context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from flask import Response, request

from ..access import origins
from ..config.context import last_event_id, query
from ..config.settings import Settings
from ..errors import CloseReason, UnsupportedWorker
from ..streams.emitter import SseEmitter, stream_of
from ..streams.registry.draining import drain_at_exit
from ..streams.registry.open_streams import StreamRegistry
from ..streams.stream import Stream
from ..wire.event import Event
from ..writers.response_body import TEST_HOOK, ClosingBody, ResponseBody
from .probe import ENVIRON_KEY, add_check_header
from .worker import runs_in_one_thread_bridge

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: The headers of every stream, beside its Content-Type.
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # keeps nginx from buffering
}

# gevent's pywsgi accepts this header of an application: it closes the connection after the response, and passes it on.
_PYWSGI_HEADERS = {**HEADERS, "Connection": "close"}

# What to change on servers that handle one request at a time and hand no client off, by the key that only they put into
# the environ.
_BLOCKING = {
    "werkzeug.socket": "run Werkzeug's server with threaded=True",
    "uwsgi.version": "start uWSGI with --threads, one for each client and some for other requests",
}

# Old browsers show a polyfill no byte of a response before it has 2 kB; these query parameters ask for padding.
_PADDING_PARAMETERS = ("padding", "evs_preamble")
_PADDING = b":" + b" " * 2048 + b"\n"


def respond(
    emitter: SseEmitter,
    response_class: type[Response],
    settings: Settings,
    registry: StreamRegistry,
    status: int | str,
    headers: Any,
) -> Response:
    """Return the response to the current request, with the emitter's stream as its body. Never blocks.

    :param response_class: made by :func:`make_streaming_class`.
    :param registry: the open streams of the app.
    :raises SseError: where another response carries the emitter.
    :raises UnsupportedWorker: where the server handles one request at a time.
    """
    environ = request.environ
    if (error := _unsupported(environ)) is not None:
        raise error
    drain_at_exit()
    stream = stream_of(emitter)
    stream.attach(settings, registry)
    if stream.last_event_id is None:  # it was made before the request
        stream.last_event_id = last_event_id()
    retry = registry.admit(emitter, request.remote_addr)
    body = ResponseBody(stream, _preamble(stream, retry), environ, settings.handoff)
    environ.get(TEST_HOOK, []).append(body)
    base = _PYWSGI_HEADERS if "gunicorn.sock" in environ else HEADERS
    response = response_class(body, status, base, content_type="text/event-stream", direct_passthrough=True)
    Response.call_on_close(response, body.close)  # also where the app puts another body in its place
    when_called(response, partial(_refuse_late, stream, body))
    response.headers.update(headers or {})
    origins.allow_origin(response.headers, settings)
    if ENVIRON_KEY in environ:
        add_check_header(emitter, environ, response.headers)
    return response


def _preamble(stream: Stream, retry: int | None) -> bytes:
    """Return the first bytes of the body. Some there are in any case, and of a bare stream they are a comment."""
    preamble = _encode_preamble(retry, stream.close_reason is None or retry is None)
    asked = query()
    return _PADDING + preamble if any(name in asked for name in _PADDING_PARAMETERS) else preamble


@lru_cache  # nearly all streams have the same
def _encode_preamble(retry: int | None, opens: bool) -> bytes:
    return Event(retry=retry, comment="stream open" if opens else None).encode()


def make_streaming_class(response_class: type[Response]) -> type[Response]:
    """Return a subclass of the app's response class that can carry a stream."""
    return type(response_class.__name__, (_StreamingResponse, response_class), {})


def when_called(response: Response, note: Callable[[WSGIEnvironment], object]) -> None:
    """Have the server's thread call this before it begins with the stream: an async view is on another thread."""
    if isinstance(response, _StreamingResponse):
        response.notes = (*response.notes, note)


class _StreamingResponse(Response):
    """Tells its body how it is called, and what is to be done once the stream is over."""

    notes: tuple[Callable[[WSGIEnvironment], object], ...] = ()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for note in self.notes:
            note(environ)
        if isinstance(self.response, ResponseBody):
            self.response.called(start_response)
        return super().__call__(environ, start_response)

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        if isinstance(self.response, ResponseBody):  # it may be over long after the server is done with the response
            self.response.when_over.append(func)
            return func
        return super().call_on_close(func)

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        app_iter = super().get_app_iter(environ)
        if isinstance(app_iter, ResponseBody):
            return ClosingBody(app_iter, app_iter.close)
        if environ["REQUEST_METHOD"] == "HEAD":
            return _NoBody(self.close)
        if app_iter is self.response:  # the app has wrapped the body
            return ClosingBody(app_iter, self.close)
        return app_iter


class _NoBody(list[bytes]):
    # Its length keeps gevent's pywsgi from announcing chunks, of which it would then write the last one.
    def __init__(self, close: Callable[[], object]) -> None:
        super().__init__()
        self.close = close


def _refuse_late(stream: Stream, body: ResponseBody, environ: WSGIEnvironment) -> None:
    """Refuse the stream on a server that it would block, which did not show where an async view made the response."""
    error = _unsupported(environ)
    if error is not None:
        stream.end(CloseReason.ERROR, error)
        body.close()
        raise error


def _unsupported(environ: WSGIEnvironment) -> UnsupportedWorker | None:
    """Return the error for a server that a stream would block; None for others."""
    if runs_in_one_thread_bridge():  # though it says otherwise
        return UnsupportedWorker(
            "asgiref's WsgiToAsgi answers one request at a time, and a stream would block it: use a2wsgi's "
            "WSGIMiddleware, with one of its workers for each client and some for other requests, or gunicorn"
        )
    fix = next((_BLOCKING[key] for key in _BLOCKING if key in environ), None)
    if fix is None or environ.get("wsgi.multithread"):
        return None
    return UnsupportedWorker(f"this server answers one request at a time, and a stream would block it: {fix}")
