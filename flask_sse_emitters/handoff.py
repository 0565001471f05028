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
import atexit
import errno
import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

from .callbacks import CloseReason
from .emitter import SseEmitter
from .frames import chunk
from .lanes import call_and_log
from .neighbours import Client
from .parking import is_green
from .scheduler import SCHEDULER, Timer
from .settings import Handoff
from .sockets import SOCKETS, Watch

log = logging.getLogger(__name__)

#: Seconds in which a client is to close its side after the last chunk; then it is closed from here.
LINGER = 2.0

#: Seconds that a process that exits waits for streams that have ended; gunicorn's ``graceful_timeout`` may be shorter.
AT_EXIT = 25.0

#: A client that takes as much as there is gets so many pieces of it; then others have their turn.
AT_ONCE = 8

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Facts:
    """What decides whether a stream can be handed off."""

    mode: Handoff  #: ``SSE_HANDOFF``
    is_gevent_worker: bool  #: of gunicorn
    has_tls: bool  #: on the worker's own socket
    is_http2: bool
    is_uwsgi: bool  #: the protocol, in which nginx, say, may speak to gunicorn
    hangups_show: bool  #: the system tells when this client leaves
    is_own_body: bool  #: the response that was made of the stream still has it for its body
    is_own_iteration: bool  #: the worker's own loop iterates over the stream, and nobody in between
    is_own_start_response: bool  #: the response was given the worker's own
    is_begun: bool  #: as far as can be seen: the headers are out, and none promises a length


def why_not(facts: Facts) -> str | None:
    """Why the stream cannot be handed off; None where it can."""
    return next((reason for reason, applies in _REASONS.items() if applies(facts)), None)


_REASONS: dict[str, Callable[[Facts], bool]] = {
    "SSE_HANDOFF is off": lambda facts: facts.mode == "off",
    "the server is not gunicorn with its gevent worker": lambda facts: not facts.is_gevent_worker,
    "the worker itself does TLS": lambda facts: facts.has_tls,
    "the client speaks HTTP/2": lambda facts: facts.is_http2,
    "the worker speaks uwsgi": lambda facts: facts.is_uwsgi,
    "this system does not tell when a client leaves": lambda facts: not facts.hangups_show,
    "the app has put another body around the stream": lambda facts: not facts.is_own_body,
    "the response has a Content-Length, or has not begun": lambda facts: not facts.is_begun,
    # From here on the user may vouch for what comes between.
    "a middleware iterates over the stream": lambda facts: facts.mode != "on" and not facts.is_own_iteration,
    "a middleware has replaced start_response": lambda facts: facts.mode != "on" and not facts.is_own_start_response,
}


@dataclass(frozen=True)
class Call:
    """How a stream is served.

    :param environ: of the request.
    :param start_response: what the response was given when it was called; None where it has another body since.
    :param body: the stream.
    :param caller: of the body's ``__next__``.
    """

    environ: Mapping[str, Any]
    start_response: Callable[..., Any] | None
    body: Iterator[bytes]
    caller: FrameType

    @property
    def client(self) -> Any:
        return self.environ.get("gunicorn.socket")

    @property
    def response(self) -> Any:
        """The worker's own response object; None where a middleware stands before it."""
        response = getattr(self.start_response, "__self__", None)
        module = sys.modules.get("gunicorn.http.wsgi")
        return response if module is not None and type(response) is module.Response else None

    @property
    def is_chunked(self) -> bool:
        response = self.response
        return self.environ["SERVER_PROTOCOL"] != "HTTP/1.0" if response is None else bool(response.chunked)

    def facts(self, mode: Handoff, watch: Watch | None) -> Facts:
        """What there is to know.

        :param watch: on the client's socket.
        """
        response, caller = self.response, self.caller
        is_worker = caller.f_globals.get("__name__") == "gunicorn.workers.base_async"
        return Facts(
            mode=mode,
            is_gevent_worker=self.client is not None and is_green() and "gunicorn.workers.ggevent" in sys.modules,
            has_tls=isinstance(self.client, ssl.SSLSocket),
            is_http2=self.environ.get("HTTP_VERSION") == "2",
            is_uwsgi="gunicorn.uwsgi.parser" in sys.modules,
            hangups_show=watch is not None and watch.is_on,
            is_own_body=self.start_response is not None,
            # Its name in the worker's code, because a wrapper that is written in C has no frame of its own.
            is_own_iteration=is_worker and caller.f_locals.get("respiter") is self.body,
            is_own_start_response=response is not None and response.sock is self.client,
            is_begun=response is None or (response.headers_sent and response.response_length is None),
        )


def note_declined(mode: Handoff, reason: str) -> None:
    """Say each reason once."""
    if reason not in _declined:
        _declined.add(reason)
        level = logging.WARNING if mode == "on" else logging.INFO
        log.log(level, "streams are written by the server, on a thread or greenlet for each: %s", reason)


_declined: set[str] = set()


def hand_off(emitter: SseEmitter, call: Call, watch: Watch, when_over: Sequence[Callable[[], object]]) -> None:
    """Take the client out of the server's hands, and go on with its stream."""
    chunked = call.is_chunked
    outlet = HandedOff(emitter, _take_client(call), chunked, watch, when_over)
    _write_to_the_end()
    watch.watcher = outlet
    emitter._hand_over(outlet)
    if outlet.begin():
        outlet.wake()


def _take_client(call: Call) -> _socket.socket:
    """The client's socket. The server finds that it has nothing more to write.

    :raises OSError: where no descriptor is to be had; then nothing has changed.
    """
    theirs, response = call.client, call.response
    nobody = _socket.socket() if response is None else None
    ours = _socket.socket(theirs.family, theirs.type, theirs.proto, theirs.detach())
    ours.setblocking(False)
    if nobody is not None:
        theirs.__init__(fileno=nobody.detach())  # a socket whose client has left, which servers take quietly
    else:
        response.chunked = False  # the last chunk is not its to write
        response.force_close()
    return ours


@cache
def _write_to_the_end() -> None:
    """Have a process that exits wait for streams that have ended, and are still being written to slow clients.

    The worker knows nothing of them: it stops as soon as no request is left.
    """
    atexit.register(_await_ended)


def _await_ended() -> None:
    deadline = SCHEDULER.clock() + AT_EXIT
    while any(isinstance(each, HandedOff) and each.is_ending for each in SOCKETS.watchers()):
        if SCHEDULER.clock() > deadline:
            break
        time.sleep(0.02)


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

    @property
    def client(self) -> Client | None:
        return self._client if self._chunked else None

    @property
    def is_ending(self) -> bool:
        """The stream has ended, and the kernel has not got all of it."""
        return not self._is_over and not self._emitter.is_open and (not self._ends or bool(self._rest))

    def beat(self, payload: bytes) -> None:
        data = self._framed(payload)
        try:
            sent = self._client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lose(error)
            return
        if sent < len(data):
            self.keep(data, sent)

    def keep(self, data: bytes, sent: int) -> None:
        self._rest = memoryview(data)[sent:]
        self._emitter._keep_back()
        SOCKETS.await_room(self._watch)

    def lose(self, error: OSError) -> None:
        self._emitter._disconnect(error)
        self._close()

    def begin(self) -> bool:
        """Write what is there, and from then on what comes; a part of it, where there is much.

        :return: whether there is more to do now.
        """
        for _ in range(AT_ONCE):
            if not self._flush():
                return False
            if self._ends:
                self._linger()
                return False
            payload = self._emitter._take()
            if payload is None:
                self._end()
            elif payload:
                self._rest = self._framed(payload)
            else:
                return False
        return True

    def wake(self) -> None:
        SCHEDULER.call_soon(self.begin)

    has_room = wake

    def give(self, payload: bytes) -> None:
        self._rest = self._framed(payload)
        if self.begin():
            self.wake()

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

    def _framed(self, payload: bytes) -> bytes:
        return chunk(payload) if self._chunked else payload

    def _flush(self) -> bool:
        """Write the rest. False where some of it is still there, or the client is not."""
        if self._is_over:
            return False
        try:
            while self._rest:
                sent = self._client.send(self._rest)
                self._rest = memoryview(self._rest)[sent:] if sent < len(self._rest) else b""
        except BlockingIOError:
            SOCKETS.await_room(self._watch)
            return False
        except OSError as error:
            self.lose(error)
            return False
        return True

    def _end(self) -> None:
        """Nothing more will come: end the body, unless that would tell the client that it missed nothing."""
        self._ends = True
        if self._emitter.close_reason in (CloseReason.OVERFLOW, CloseReason.DISCONNECTED):
            self._close()
        elif self._chunked:
            self._rest = _LAST_CHUNK
            self._close_within(self._emitter._settings.write_seconds, self._close)

    def _linger(self) -> None:
        """Let the client read to the end and close first: what it has sent would else destroy what it is to read."""
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
        self._close_when_taken(self.unsent() or 0, SCHEDULER.clock())

    def _close_when_taken(self, unsent: int, since: float) -> None:
        """Close soon; later, where the client has not got all, and takes something now and then."""

        def look_again() -> None:
            now = self.unsent() or 0
            if now == 0 or SCHEDULER.clock() >= since + self._emitter._settings.write_seconds:
                self._close()
            elif now < unsent:
                self._close_when_taken(now, SCHEDULER.clock())
            else:
                self._close_when_taken(unsent, since)

        self._close_within(LINGER, look_again)

    def _close_within(self, seconds: float, close: Callable[[], object]) -> None:
        self._cancel_timer()
        if seconds:
            self._timer = SCHEDULER.call_at(SCHEDULER.clock() + seconds, close)

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
        if self._ends:
            self._read_what_is_left()
        with suppress(OSError):  # it is gone; otherwise this reaches the client though a forked child has the socket
            self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()
        self._emitter._release(ConnectionAbortedError(errno.ECONNABORTED, "the client left"))
        if self._when_over:
            SCHEDULER.run(self._do_when_over)

    def _read_what_is_left(self) -> None:
        """What is left unread would make the kernel reset the connection, in place of ending it."""
        with suppress(OSError):
            for _ in range(AT_ONCE):
                if not self._client.recv(65_536):
                    return

    def _do_when_over(self) -> None:
        for call in self._when_over:
            call_and_log(call)
