"""The fast way out: a stream that gunicorn's gevent worker has begun is written by itself from then on.

Its client's socket is taken out of the worker's hands, and the greenlet of the request ends. From then on there is no
greenlet, no stack and no queue for this client: what a list sends is one non-blocking ``send`` of bytes that were made
once for all. Only a client whose socket is full has something kept for it, and is watched until there is room.

All writes happen on the worker's one thread, in code that never switches to another greenlet: the walk over a list, or
a call by the scheduler. So they exclude each other without a lock.

The descriptor is not duplicated: gevent's event loop would go on to report what happens to the first one, which shares
all with the second, for as long as the client stays.
"""

from __future__ import annotations

import _socket
import errno
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from .backlog import Batch, chunk
from .callbacks import CloseReason
from .emitter import SseEmitter
from .parking import is_green
from .scheduler import SCHEDULER, Timer
from .settings import Handoff
from .sockets import SOCKETS, Watch

log = logging.getLogger(__name__)

#: Seconds in which a client is to close its side after the last chunk; then it is closed from here.
LINGER = 2.0

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """What there is to know about how a stream came to be served.

    :param environ: of the request.
    :param start_response: that the response was given.
    :param iterates: who has called ``__next__`` of the body, and is about to be called back for more.
    """

    environ: Mapping[str, Any]
    start_response: Callable[..., Any]
    body: Iterator[bytes]
    iterates: FrameType

    @property
    def client(self) -> Any:
        return self.environ.get("gunicorn.socket")

    @property
    def response(self) -> Any:
        """The worker's own response object; None where a middleware stands before it."""
        response = getattr(self.start_response, "__self__", None)
        return response if type(response) is sys.modules["gunicorn.http.wsgi"].Response else None


def why_not(mode: Handoff, request: Request, watch: Watch | None) -> str | None:
    """Why the stream cannot be handed off; None where it can.

    :param mode: ``SSE_HANDOFF``.
    :param watch: on the client's socket.
    """
    if mode == "off":
        return "SSE_HANDOFF is off"
    if request.client is None or not is_green() or "gunicorn.workers.ggevent" not in sys.modules:
        return "the server is not gunicorn with its gevent worker"
    if isinstance(request.client, ssl.SSLSocket):
        return "the worker itself does TLS"
    if request.environ.get("HTTP_VERSION") == "2":
        return "the client speaks HTTP/2"
    if "gunicorn.uwsgi.parser" in sys.modules:
        return "the worker speaks uwsgi"
    if watch is None or not watch.is_on:
        return "this system does not tell when a client leaves"
    return None if mode == "on" else _what_comes_between(request)


def _what_comes_between(request: Request) -> str | None:
    response = request.response
    if response is None or response.sock is not request.client:
        return "a middleware has replaced start_response"
    caller = request.iterates
    is_worker = caller.f_globals.get("__name__") == "gunicorn.workers.base_async"
    if not is_worker or caller.f_locals.get("respiter") is not request.body:
        return "a middleware comes between the stream and the worker"
    if not response.headers_sent or response.response_length is not None:
        return "the response has a Content-Length"
    return None


def note_declined(mode: Handoff, reason: str | None) -> None:
    """Say each reason once."""
    if reason is not None and reason not in _declined:
        _declined.add(reason)
        level = logging.WARNING if mode == "on" else logging.INFO
        log.log(level, "streams are written by the server, on a thread or greenlet for each: %s", reason)


_declined: set[str] = set()


def hand_off(emitter: SseEmitter, request: Request, watch: Watch, when_over: Sequence[Callable[[], object]]) -> None:
    """Take the client out of the server's hands, and go on with its stream."""
    chunked = request.environ["SERVER_PROTOCOL"] != "HTTP/1.0"
    outlet = HandedOff(emitter, _take_client(request), chunked, watch, when_over)
    watch.watcher = outlet
    emitter._hand_over(outlet)
    outlet.begin()


def _take_client(request: Request) -> _socket.socket:
    """The client's socket. The server finds that it has nothing more to write."""
    theirs = request.client
    ours = _socket.socket(theirs.family, theirs.type, theirs.proto, theirs.detach())
    ours.setblocking(False)
    response = request.response
    if response is not None:
        response.chunked = False  # the last chunk is not its to write
        response.force_close()
    else:
        theirs.__init__()  # it is now a socket whose client has left, which servers take quietly
    return ours


class HandedOff:
    """One client that is written to directly: an outlet of its emitter.

    :param client: its socket, non-blocking and native.
    :param chunked: whether the body is sent in chunks: not to HTTP/1.0.
    :param watch: on this socket.
    :param when_over: what else is to be done, in the background, when the stream is over.
    """

    __slots__ = ("_chunked", "_client", "_emitter", "_ends", "_is_over", "_rest", "_timer", "_watch", "_when_over")

    def __init__(
        self,
        emitter: SseEmitter,
        client: _socket.socket,
        chunked: bool,
        watch: Watch,
        when_over: Sequence[Callable[[], object]],
    ) -> None:
        self._emitter = emitter
        self._client = client
        self._chunked = chunked
        self._watch = watch
        self._when_over = tuple(when_over)
        self._rest: bytes | memoryview = b""  # what the client did not take at once
        self._ends = False  # nothing will come after the rest
        self._is_over = False
        self._timer: Timer | None = None  # the end of our patience with a client that does not close its side

    def write(self, batch: Batch) -> None:
        data = batch.chunk if self._chunked else batch.payload
        try:
            sent = self._client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
            self._emitter._keep_back()
            SOCKETS.await_room(self._watch)

    def begin(self) -> None:
        """Write what is there, and from then on what comes."""
        while self._flush():
            if self._ends:
                self._linger()
                return
            payload = self._emitter._take()
            if payload is None:
                self._end()
            elif payload:
                self._rest = chunk(payload) if self._chunked else payload
            else:
                return

    has_room = begin

    def wake(self) -> None:
        SCHEDULER.call_soon(self.begin)

    def cut(self) -> None:
        SCHEDULER.call_soon(self._close)

    def unsent(self) -> int | None:
        return SOCKETS.unsent(self._watch)

    def hung_up(self) -> None:
        if self._ends:
            self._close()
        else:
            self._emitter._disconnect(ConnectionResetError(errno.ECONNRESET, "the client left"))

    def forked(self) -> None:
        self._client.close()  # the child's descriptor only

    def _flush(self) -> bool:
        """Write the rest. False where some of it is still there, or the client is not."""
        if self._is_over:
            return False
        try:
            while self._rest:
                self._rest = memoryview(self._rest)[self._client.send(self._rest) :]
        except BlockingIOError:
            SOCKETS.await_room(self._watch)
            return False
        except OSError as error:
            self._lose(error)
            return False
        self._rest = b""
        return True

    def _lose(self, error: OSError) -> None:
        self._emitter._disconnect(error)
        self._close()

    def _end(self) -> None:
        """Nothing more will come: end the body, unless that would tell the client that it missed nothing."""
        self._ends = True
        if self._emitter.close_reason in (CloseReason.OVERFLOW, CloseReason.DISCONNECTED):
            self._close()
        elif self._chunked:
            self._rest = _LAST_CHUNK
            self._close_within(self._emitter._settings.write_seconds)

    def _linger(self) -> None:
        """Let the client read to the end, and close first: what it still sends would else destroy what it reads."""
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
        self._close_within(LINGER)

    def _close_within(self, seconds: float) -> None:
        self._cancel_timer()
        if seconds:
            self._timer = SCHEDULER.call_at(SCHEDULER.clock() + seconds, self._close)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            SCHEDULER.cancel(timer)

    def _close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._cancel_timer()
        self._rest = b""
        SOCKETS.forget(self._watch)
        with suppress(OSError):  # it is gone; otherwise this reaches the client though a forked child has the socket
            self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()
        self._emitter._release(ConnectionAbortedError(errno.ECONNABORTED, "the client left"))
        for call in self._when_over:
            SCHEDULER.run(call)
