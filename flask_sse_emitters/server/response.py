"""An emitter as a Flask response: its headers and its body.

The request ends before its stream begins, and gives back its database session and whatever else it holds: nothing here
keeps a context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Response, request

from ..access import origins as cors
from ..config.settings import Settings, query
from ..errors import UnsupportedWorker
from ..streams.emitter import SseEmitter
from ..streams.registry import Streams
from ..wire.event import Event
from ..writers.response_body import WITNESS, Body, Stream
from . import check_headers as probe

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Of every stream, beside its type.
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # has nginx pass on at once what it gets
}

# gevent's pywsgi takes this from an application, closes the connection after the response, and passes the header on.
_PYWSGI_HEADERS = {**HEADERS, "Connection": "close"}

# Servers that answer one request at a time, by what only they put in the environ.
_BLOCKING = {
    "gunicorn.socket": "start gunicorn with --worker-class gevent (or gthread, and one of --threads for each client)",
    "werkzeug.socket": "run Werkzeug's server with threaded=True",
}

# Old browsers show a polyfill nothing of a response before 2 kB are there; these query parameters ask for them.
_PADDING_WANTED = ("padding", "evs_preamble")
_PADDING = b":" + b" " * 2048 + b"\n"


def respond(
    emitter: SseEmitter,
    response_class: type[Response],
    settings: Settings,
    streams: Streams,
    status: int | str,
    headers: Any,
) -> Response:
    """The response to the request that is pushed here, with the emitter's stream for its body.

    :param response_class: made by :func:`streaming`.
    :param streams: those of the app.
    """
    environ = request.environ
    _refuse_blocking(environ)
    emitter._attach(settings, streams)
    retry = streams.admit(emitter, request.remote_addr)
    greeting = Event(retry=retry, comment="stream open" if emitter.is_open else None).encode()
    if any(name in query() for name in _PADDING_WANTED):
        greeting = _PADDING + greeting
    stream = Stream(emitter, greeting, environ, settings.handoff)
    environ.get(WITNESS, []).append(stream)
    own = _PYWSGI_HEADERS if "gunicorn.sock" in environ else HEADERS
    response = response_class(stream, status, own, content_type="text/event-stream", direct_passthrough=True)
    Response.call_on_close(response, stream.close)  # also where somebody puts another body in its place
    response.headers.update(headers or {})
    cors.allow(response.headers, settings)
    if probe.KEY in environ:
        probe.answer(emitter, environ, response.headers)
    return response


def streaming(response_class: type[Response]) -> type[Response]:
    """The app's own class of responses, able to carry a stream."""
    return type(response_class.__name__, (_StreamingResponse, response_class), {})


class _StreamingResponse(Response):
    """Lets the stream know how it is called, and what is to be done when it is over."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if isinstance(self.response, Stream):
            self.response.called(start_response)
        return super().__call__(environ, start_response)

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        if isinstance(self.response, Stream):  # it may be over long after the server is done with the response
            self.response.when_over.append(func)
            return func
        return super().call_on_close(func)

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        app_iter = super().get_app_iter(environ)
        if isinstance(app_iter, Stream):
            return Body(app_iter, app_iter.close)
        if environ["REQUEST_METHOD"] == "HEAD":
            return _NoBody(self.close)
        if app_iter is self.response:  # somebody has wrapped the stream
            return Body(app_iter, self.close)
        return app_iter


class _NoBody(list[bytes]):
    # Its length keeps gevent's pywsgi from announcing chunks, of which it would then write the last one.
    def __init__(self, close: Callable[[], object]) -> None:
        super().__init__()
        self.close = close


def _refuse_blocking(environ: WSGIEnvironment) -> None:
    if environ.get("wsgi.multithread"):
        return
    for sign, mend in _BLOCKING.items():
        if sign in environ:
            raise UnsupportedWorker(f"this server answers one request at a time, and a stream would block it: {mend}")
