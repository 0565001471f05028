"""Handing a client off: a stream that a worker of gunicorn has begun is written without the worker from then on.

The client's socket is taken from the worker, and the request ends. From then on there is no thread, no greenlet, no
stack and no queue for this client: what a list sends is one non-blocking ``send`` of bytes that were made for all. Only
for a client whose socket is full something is kept, and the socket is watched until there is room. One thread of the
process writes to all of these clients: see :mod:`.writers.socket_writer`.

The descriptor is not duplicated: an event loop of the worker would go on reporting on the first one, which shares
everything with the second, for as long as the client stays.
"""

from __future__ import annotations

import _socket
import logging
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import FrameType
from typing import Any, NamedTuple

from ..config.settings import Handoff
from ..errors import UnsupportedWorker
from ..runtime.gevent_loop import is_green
from ..runtime.scheduler import SCHEDULER
from ..runtime.socket_monitor import Watch
from ..streams.interfaces import Registry
from ..streams.stream import Stream
from .client_socket import take_socket
from .movable_writer import MovableWriter
from .worker_response import WorkerResponse, client_of, iterates, response_of, response_of_loop

log = logging.getLogger("flask_sse_emitters.handoff")


class Facts(NamedTuple):
    """What decides whether a stream can be handed off."""

    mode: Handoff  #: ``SSE_HANDOFF``
    is_known_worker: bool  #: gunicorn's sync, gthread, gevent or gevent_pywsgi
    has_tls: bool  #: on the worker's own socket
    is_http2: bool
    is_uwsgi: bool  #: the protocol, in which nginx, say, may speak to gunicorn
    hangups_show: bool  #: the system tells when this client leaves
    is_own_body: bool  #: the response still has the stream for its body
    is_own_iteration: bool  #: the worker's own loop iterates over the body, and no middleware in between
    is_own_start_response: bool  #: the response was called with the worker's own start_response
    is_begun: bool  #: as far as can be seen, the headers are out, and promise no length


def why_not(facts: Facts) -> str | None:
    """Return why the stream cannot be handed off; None where it can."""
    return next((reason for reason, applies in _REASONS.items() if applies(facts)), None)


_REASONS: dict[str, Callable[[Facts], bool]] = {
    "SSE_HANDOFF is off": lambda facts: facts.mode == "off",
    "the server is not gunicorn with a worker of its own": lambda facts: not facts.is_known_worker,
    "the worker itself does TLS": lambda facts: facts.has_tls,
    "the client speaks HTTP/2": lambda facts: facts.is_http2,
    "the worker speaks uwsgi": lambda facts: facts.is_uwsgi,
    "this system does not tell when a client leaves": lambda facts: not facts.hangups_show,
    "the app has put another body around the stream": lambda facts: not facts.is_own_body,
    "the response has a Content-Length, or has not begun": lambda facts: not facts.is_begun,
    # From here on the user may vouch for the middleware.
    "a middleware iterates over the stream": lambda facts: facts.mode != "on" and not facts.is_own_iteration,
    "a middleware has replaced start_response": lambda facts: facts.mode != "on" and not facts.is_own_start_response,
}


_CHANGES_NOTHING = "Keep it off streams, or, if it changes no byte of them, set SSE_HANDOFF to on."

_ADVICE = {
    "SSE_HANDOFF is off": "Set SSE_HANDOFF to auto, its default.",
    "the server is not gunicorn with a worker of its own": "gunicorn's workers sync, gthread and gevent hand them off.",
    "the worker itself does TLS": "Let a proxy do TLS, and speak plain HTTP to gunicorn.",
    "the client speaks HTTP/2": "Let a proxy speak HTTP/2, and HTTP/1.1 to gunicorn.",
    "the worker speaks uwsgi": "Let the proxy speak HTTP to gunicorn. nginx: proxy_pass in place of uwsgi_pass.",
    "this system does not tell when a client leaves": "Linux does.",
    "the app has put another body around the stream": "Have what does it, such as compression, leave streams alone.",
    "the response has a Content-Length, or has not begun": "Leave out the Content-Length.",
    "a middleware iterates over the stream": _CHANGES_NOTHING,
    "a middleware has replaced start_response": _CHANGES_NOTHING,
}


def advice(reason: str) -> str:
    """Return what to change so that streams are handed off, in sentences; empty where the reason is another."""
    return _ADVICE.get(reason, "")


class Call:
    """How a stream is served.

    :param environ: of the request.
    :param start_response: what the response was called with; None where the app has given it another body since.
    :param body: of the response.
    :param caller: the frame that iterates over the body.
    :ivar client: the client's socket; None on another server.
    :ivar response: the worker's own response; None behind a middleware.
    """

    __slots__ = ("body", "caller", "client", "environ", "response", "start_response")

    def __init__(
        self,
        environ: Mapping[str, Any],
        start_response: Callable[..., Any] | None,
        body: Iterator[bytes],
        caller: FrameType,
    ) -> None:
        self.environ = environ
        self.start_response = start_response
        self.body = body
        self.caller = caller
        self.client: Any = client_of(environ)
        self.response: WorkerResponse | None = response_of(start_response)

    @property
    def blocks_worker(self) -> bool:
        """Whether the worker handles one request at a time, so that a stream that is not handed off would block it."""
        return self.client is not None and not self.environ["wsgi.multithread"]

    @property
    def is_chunked(self) -> bool:
        """Whether the body is sent in chunks."""
        response = self.response
        return self.environ["SERVER_PROTOCOL"] != "HTTP/1.0" if response is None else response.is_chunked

    @property
    def may_be_broken(self) -> bool:
        """Whether the worker's client may be sent what is no chunk, beside the worker: see :data:`.BROKEN_CHUNK`."""
        response = self.response
        if isinstance(self.client, ssl.SSLSocket) or self.environ.get("HTTP_VERSION") == "2":
            return False
        return (
            "gunicorn.uwsgi.parser" not in sys.modules
            and response is not None
            and response.is_chunked
            and response.has_sent_headers
        )

    def facts(self, mode: Handoff, watch: Watch | None, *, before_headers: bool = False) -> Facts:
        """Gather what decides.

        :param mode: ``SSE_HANDOFF``.
        :param watch: on the client's socket.
        :param before_headers: they are about to be sent, with the first piece.
        """
        response = self.response
        return Facts(
            mode=mode,
            # A worker whose threads were patched afterwards has an event loop that this package knows nothing of.
            is_known_worker=self.client is not None and is_green() == ("gunicorn.workers.ggevent" in sys.modules),
            has_tls=isinstance(self.client, ssl.SSLSocket),
            is_http2=self.environ.get("HTTP_VERSION") == "2",
            is_uwsgi="gunicorn.uwsgi.parser" in sys.modules,
            hangups_show=watch is not None and watch.shows_hang_up,
            is_own_body=self.start_response is not None,
            is_own_iteration=iterates(self.caller, self.body),
            is_own_start_response=response is not None and response.socket is self.client,
            is_begun=response is None or ((before_headers or response.has_sent_headers) and not response.has_length),
        )


def announce_close(start_response: Callable[..., Any] | None, caller: FrameType) -> bool:
    """Have gunicorn say ``Connection: close``, and close it after the stream, however that is written and ends.

    Else proxies and clients with a pool would keep the connection, and lose a request on it when it closes. The head
    must not be out yet: it leaves with the first piece of the body. An application may not set the header itself (PEP
    3333). Does nothing on another server, over HTTP/2, or where the body is iterated over on another thread than the
    worker's.

    :param start_response: what the response was called with, if it was.
    :param caller: the frame that iterates over the body.
    :return: whether gunicorn announces it.
    """
    response = response_of(start_response) or response_of_loop(caller)
    if response is None or response.has_sent_headers:
        return False
    response.close_afterwards()
    return True


def note_writer(registry: Registry | None, mode: Handoff, reason: str | None) -> None:
    """Log who writes the streams: once in a process for those that are handed off, and for each reason why not.

    :param reason: why this one is not handed off; None where it is.
    """
    if reason in _noted:
        return
    _noted.add(reason)
    server = "unknown" if registry is None else registry.thread_use.describe()
    if reason is None:
        log.info("streams are handed off: they hold neither a thread nor a greenlet of the server (%s)", server)
        return
    level = logging.WARNING if mode == "on" else logging.INFO
    held = "greenlet" if is_green() else "thread"
    log.log(level, "streams are written by the server (%s), on a %s for each: %s", server, held, reason)


def refusal(reason: str) -> UnsupportedWorker:
    """Return the error for a stream that would block its worker, as it is not handed off."""
    return UnsupportedWorker(
        f"this worker answers one request at a time, and a stream would block it, as it is not handed off: {reason}. "
        "Change that, or start gunicorn with --worker-class gthread or gevent"
    )


_noted: set[str | None] = set()


def hand_off(stream: Stream, call: Call, watch: Watch, when_over: Sequence[Callable[[], object]]) -> None:
    """Take the client from the server, and go on with its stream. Only on the request's thread or greenlet.

    :param when_over: is called in the background when the stream is over.
    :raises OSError: where there is no descriptor to be had; then nothing has changed.
    """
    chunked = call.is_chunked
    writer = MovableWriter(stream, _take_client(call), chunked, watch, when_over)
    watch.watcher = writer
    if stream.take_over(writer) and (not SCHEDULER.is_writer() or writer.begin()):
        writer.wake()


def _take_client(call: Call) -> _socket.socket:
    """Take the client's socket. The server finds that it has nothing more to write.

    :raises OSError: where there is no descriptor to be had; then nothing has changed.
    """
    theirs, response = call.client, call.response
    # gthread would count its connections wrongly without a socket to close, and pywsgi fail. sync, which ends where it
    # has no descriptor for the next client, keeps one free so: this client is refused where there is none.
    substitute = None if is_green() and response is not None else os.dup(_unconnected_socket().fileno())
    ours = take_socket(theirs)
    if substitute is not None:
        # With the other arguments, for which the system would be asked.
        theirs.__init__(ours.family, ours.type, ours.proto, substitute)
    if response is not None:
        response.let_go()
    return ours


@cache
def _unconnected_socket() -> _socket.socket:
    """Return the socket that a worker gets in place of each client's: to duplicate it costs less than to make one."""
    return _socket.socket()
