"""The iterable that a WSGI server (PEP 3333) writes to the client."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..config.settings import Handoff
from ..errors import CloseReason
from ..runtime.parking import SLICE, give_way, parker
from ..runtime.scheduler import SCHEDULER
from ..runtime.socket_monitor import SOCKETS, Watch, put_out_of_reach
from ..streams.emitter import SseEmitter
from .handoff import Call, announce_close, hand_off, note_declined, why_not

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Where servers show an application its client's socket.
_SOCKETS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")

#: The key in the environ of a test's request: a list that is given the stream that answers it.
WITNESS = "flask_sse_emitters.witness"


class Stream:
    """What the server iterates over, on the thread or greenlet that it gives to the client: one outlet of an emitter.

    Once the first bytes are on their way it hands the client off, where it can: see :mod:`.writers.handoff`.

    Not a generator, because one that was never started never learns that it was closed.

    :param greeting: what is written first, in any case.
    :param environ: of the request.
    :param handoff: ``SSE_HANDOFF``.
    """

    __slots__ = (
        "_ahead",
        "_asleep",
        "_closes",
        "_emitter",
        "_environ",
        "_greeting",
        "_handoff",
        "_parker",
        "_slice_ends",
        "_start_response",
        "_watch",
        "declined",
        "when_over",
    )

    def __init__(self, emitter: SseEmitter, greeting: bytes, environ: WSGIEnvironment, handoff: Handoff) -> None:
        self._emitter: SseEmitter | None = emitter  # None once it has been handed off
        self._greeting: bytes | None = greeting
        self._handoff = handoff
        self._environ: WSGIEnvironment | None = environ  # None once it is decided who writes the stream
        self._start_response: StartResponse | None = None
        self._watch: Watch | None = None
        self._slice_ends = 0.0  # when to let others run, where it has not slept until then
        self._asleep = False  # there was nothing to take: park before trying again
        self._ahead = b""  # what has been taken already
        self._closes = False  # the server closes the connection afterwards, and has said so
        self.when_over: list[Callable[[], object]] = []
        self.declined: str | None = None

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        if self._environ is not None:
            if self._greeting is not None:
                self._closes = announce_close(self._start_response, _caller())
                return self._begin(self._greeting)
            if self._is_handed_off(self._environ, _caller()):
                raise StopIteration
        while True:
            if self._ahead:
                ahead, self._ahead = self._ahead, b""
                return ahead
            if self._asleep:
                self._asleep = False
                given = self._parker.park()
                self._slice_ends = SCHEDULER.clock() + SLICE
                if given:
                    return given
            payload = None if self._emitter is None else self._emitter._take()
            if payload:
                if SCHEDULER.clock() > self._slice_ends:  # a write does not give way while the socket takes everything
                    give_way()
                    self._slice_ends = SCHEDULER.clock() + SLICE
                return payload
            if payload is None:
                raise self._end()
            self._asleep = True

    def is_ready(self) -> bool:
        """Whether the next piece is there, or the end: nobody has to wait for it."""
        if self._greeting is not None or self._emitter is None:
            return True
        if self._asleep and not self._emitter._idle:
            self._asleep = False
            self._ahead = self._parker.park() or b""
        if not (self._ahead or self._asleep):
            piece = self._emitter._take()
            self._asleep = piece == b""
            self._ahead = piece or b""
        return not self._asleep

    def called(self, start_response: StartResponse) -> None:
        """The server, or whoever stands before it, begins with the response, and this is its body."""
        self._start_response = start_response

    def close(self) -> None:
        """The server is done with the response: the one place where it says so."""
        if self._closes and self._watch is not None:  # gthread's main thread would wait for the client to close first
            SOCKETS.stop_reading(self._watch)
        self._forget_client()
        left = "the client left" if self._greeting is None else "the response was closed before its first byte"
        if self._emitter is not None:
            self._emitter._release(ConnectionAbortedError(errno.ECONNABORTED, left))
        while self.when_over:
            self.when_over.pop(0)()

    def wake(self) -> None:
        self._parker.unpark()

    def give(self, payload: bytes) -> None:
        self._parker.give(payload)

    def cut(self) -> None:
        watch = self._watch
        if watch is not None:
            SOCKETS.cut(watch)

    def unsent(self) -> int | None:
        watch = self._watch
        return None if watch is None else SOCKETS.unsent(watch)

    def acknowledged(self) -> int | None:
        watch = self._watch
        return None if watch is None else SOCKETS.acknowledged(watch)

    def hung_up(self) -> None:
        if self._emitter is not None:
            self._emitter._disconnect(ConnectionResetError(errno.ECONNRESET, "the client left"))

    def has_room(self) -> None:
        """The server waits for that."""

    def forked(self) -> None:
        if self._watch is not None:
            put_out_of_reach(self._watch.descriptor)

    def _begin(self, greeting: bytes) -> bytes:
        emitter, self._greeting = self._emitter, None
        assert emitter is not None
        self._parker = parker()
        emitter._stream_to(self)
        emitter._count(0, len(greeting))
        client = None if self._environ is None else _client_socket(self._environ)
        if client is not None:
            self._watch = SOCKETS.watch(client, self)
        # It is not decided yet who writes the stream: what came to this outlet while the server writes would be lost.
        return greeting + (emitter._take(sleeps=False) or b"")

    def _is_handed_off(self, environ: WSGIEnvironment, caller: FrameType) -> bool:
        """Hand the client off now, where that can be."""
        call = Call(environ, self._start_response, self, caller)
        self._environ = self._start_response = None
        emitter, watch = self._emitter, self._watch
        if emitter is None or not emitter.is_open:  # the server may as well write what is left
            return False
        reason = why_not(call.facts(self._handoff, watch))
        if reason is not None or watch is None:
            self._note_declined(str(reason))
            return False
        try:
            hand_off(emitter, call, watch, self.when_over)
        except OSError as error:  # no descriptor is to be had now
            self._note_declined(str(error))
            return False
        self._emitter, self._watch, self.when_over = None, None, []
        return True

    def _note_declined(self, reason: str) -> None:
        self.declined = reason
        note_declined(self._handoff, reason)

    def _end(self) -> Exception:
        if self._emitter is None or self._emitter.close_reason is not CloseReason.OVERFLOW:
            return StopIteration()
        # A clean end would tell the client that it missed nothing. Servers take this for a client that is gone.
        return BrokenPipeError(errno.EPIPE, str(self._emitter.error))

    def _forget_client(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            SOCKETS.forget(watch)


class Body:
    """The body as the server gets it, which is closed where it is dropped as well.

    A middleware may forget to call ``close()``, though it has to (PEP 3333). The stream itself is kept alive by its
    emitter: it would count for ever, and a worker that stops would wait for it.
    """

    __slots__ = ("_close", "_next", "_process", "pieces")

    def __init__(self, pieces: Iterable[bytes], close: Callable[[], object]) -> None:
        self._close: Callable[[], object] | None = close
        self._process = os.getpid()
        self.pieces = pieces
        self._next = iter(pieces).__next__

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        return self._next()

    def close(self) -> None:
        """Close it; idempotent."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def __del__(self) -> None:
        # A forked child drops its copies of the parent's greenlets: their streams are the parent's.
        if not sys.is_finalizing() and self._process == os.getpid():
            self.close()


def _caller() -> FrameType:
    """Find who iterates over the stream that calls this: over its body, where that was made."""
    caller = sys._getframe(2)
    if caller.f_code is Body.__next__.__code__ and caller.f_back is not None:
        caller = caller.f_back
    return caller


def _client_socket(environ: WSGIEnvironment) -> int | None:
    client = next((environ[name] for name in _SOCKETS if name in environ), None)
    descriptor = -1 if client is None else int(client.fileno())
    return None if descriptor < 0 else descriptor
