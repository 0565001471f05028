"""The iterable that a WSGI server (PEP 3333) writes to the client."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..config.settings import Handoff
from ..errors import CloseReason
from ..runtime.gevent_loop import TIME_SLICE_SECONDS, is_green, yield_now
from ..runtime.scheduler import SCHEDULER
from ..runtime.socket_monitor import SOCKET_MONITOR, Watch, replace_with_dead_fd
from ..runtime.waiter import make_waiter
from ..streams.machine import DRAINED
from ..streams.outgoing import WriterState
from ..streams.stream import Stream
from .handoff import Call, announce_close, hand_off, note_writer, refusal, why_not
from .socket_writer import BREAK_SECONDS, BROKEN_CHUNK

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Where servers show an application its client's socket.
_SOCKETS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")

#: On threads the server writes so many bytes of output with the preamble: a socket that took the head takes them, too.
FIRST_BYTES = 1024

#: The key in the environ of a request from a test: a list, to which the stream that answers it is added.
TEST_HOOK = "flask_sse_emitters.test_hook"


class ResponseBody:
    """The iterable of one stream: a writer that the server drives, on the thread or greenlet that it gives the client.

    Once the first bytes are on their way it hands the client off, where it can: see :mod:`.writers.handoff`.

    Not a generator, because one that was never started never learns that it was closed.

    :param preamble: what is written first, in any case.
    :param environ: of the request.
    :param handoff: ``SSE_HANDOFF``.
    """

    __slots__ = (
        "_ahead",
        "_asleep",
        "_closes",
        "_environ",
        "_handoff",
        "_may_be_broken",
        "_preamble",
        "_slice_ends",
        "_start_response",
        "_stream",
        "_waiter",
        "_watch",
        "declined",
        "when_over",
    )

    def __init__(self, stream: Stream, preamble: bytes, environ: WSGIEnvironment, handoff: Handoff) -> None:
        self._stream: Stream | None = stream  # None once it has been handed off
        self._preamble: bytes | None = preamble
        self._handoff = handoff
        self._environ: WSGIEnvironment | None = environ  # None once it is decided which writer goes on
        self._start_response: StartResponse | None = None
        self._watch: Watch | None = None
        self._slice_ends = 0.0  # when to let others run, unless it sleeps before
        self._asleep = False  # there was nothing to take: wait before asking again
        self._ahead = b""  # what has been taken already
        self._closes = False  # the server closes the connection afterwards, and has said so
        self._may_be_broken = False
        self.when_over: list[Callable[[], object]] = []
        self.declined: str | None = None

    def __iter__(self) -> ResponseBody:
        return self

    def __next__(self) -> bytes:
        if self._preamble is not None:
            self._closes = announce_close(self._start_response, _caller())
            return self._begin(self._preamble, _caller())
        if self._environ is not None and self._try_hand_off(self._environ, _caller()):
            raise StopIteration
        return self._next_piece()

    def try_fetch(self) -> bool:
        """Fetch the next piece without waiting; return whether there is one, or the end. For tests of apps."""
        if self._preamble is not None or self._stream is None:
            return True
        self._stream.take_queued()  # several events at once may still be on their way through a list
        if self._asleep and self._stream.outgoing.state is not WriterState.IDLE:
            self._asleep = False
            self._ahead = self._waiter.wait() or b""
        if not (self._ahead or self._asleep):
            piece = self._stream.next_output()
            self._asleep = piece == b""
            self._ahead = piece or b""
        return not self._asleep

    def called(self, start_response: StartResponse) -> None:
        """Note what the response was given when the server, or a middleware, called it."""
        self._start_response = start_response

    def close(self) -> None:
        """Let go of the stream: the server is done with the response. The one place where it says so."""
        if self._closes and self._watch is not None:  # gthread's main thread would wait for the client to close first
            SOCKET_MONITOR.stop_reading(self._watch)
        self._forget_client()
        left = "the client left" if self._preamble is None else "the response was closed before its first byte"
        if self._stream is not None:
            self._stream.release(ConnectionAbortedError(errno.ECONNABORTED, left))
        while self.when_over:
            self.when_over.pop(0)()

    def wake(self) -> None:
        """Have the server's thread ask for the next piece."""
        self._waiter.wake()

    def wake_with(self, payload: bytes) -> None:
        """Have the server's thread write this, then ask for the next piece."""
        self._waiter.wake_with(payload)

    def cut(self) -> None:
        """Shut the client's socket down, where it is known: a write that waits for it ends."""
        watch = self._watch
        if watch is not None:
            SOCKET_MONITOR.cut(watch)

    def unsent(self) -> int | None:
        """Return how many bytes the client has not acknowledged; None where that is unknown."""
        watch = self._watch
        return None if watch is None else SOCKET_MONITOR.unsent(watch)

    def acknowledged(self) -> int | None:
        """Return how many bytes the client has acknowledged; None where that is unknown."""
        watch = self._watch
        return None if watch is None else SOCKET_MONITOR.acknowledged(watch)

    def on_hang_up(self) -> None:
        """End the stream: the client has left."""
        if self._stream is not None:
            self._stream.end(CloseReason.DISCONNECTED, ConnectionResetError(errno.ECONNRESET, "the client left"))

    def on_room(self) -> None:
        """Do nothing: the server waits for that."""

    def on_fork(self) -> None:
        """Let go of the client's socket in a forked child."""
        if self._watch is not None:
            replace_with_dead_fd(self._watch.descriptor)

    def _next_piece(self) -> bytes:
        """Return the next piece, and wait for it. Raise what tells the server of the end."""
        while True:
            if self._ahead:
                ahead, self._ahead = self._ahead, b""
                return ahead
            if self._asleep:
                self._asleep = False
                given = self._waiter.wait()
                self._slice_ends = SCHEDULER.clock() + TIME_SLICE_SECONDS
                if given:
                    return given
            payload = None if self._stream is None else self._stream.next_output()
            if payload:
                if SCHEDULER.clock() > self._slice_ends:  # a write does not give way while the socket takes everything
                    yield_now()
                    self._slice_ends = SCHEDULER.clock() + TIME_SLICE_SECONDS
                return payload
            if payload is None:
                raise self._end()
            self._asleep = True

    def _begin(self, preamble: bytes, caller: FrameType) -> bytes:
        stream, self._preamble = self._stream, None
        assert stream is not None
        self._waiter = make_waiter()
        stream.begin(self)
        client = None if self._environ is None else _client_socket(self._environ)
        if client is not None:
            self._watch = SOCKET_MONITOR.watch(client, self)
        call = None if self._environ is None else Call(self._environ, self._start_response, self, caller)
        if call is not None:
            self._refuse_to_block(call)
        stream.count(0, len(preamble))
        if call is not None and call.client is not None and not is_green():
            # The worker's write of more may wait for the client, and hold up its thread. Mostly there is no more: then
            # the stream is idle after the hand-off, and the thread that writes need not be woken.
            return preamble + (stream.next_output(sleeps=False, most=FIRST_BYTES) or b"")
        if stream.client_sees == "break":
            return preamble  # a hand-off follows, for the server cannot reset a connection
        # Without sleeping: a hand-off may follow, and what wakes this writer while the server writes would be lost.
        return preamble + (stream.next_output(sleeps=False) or b"")

    def _refuse_to_block(self, call: Call) -> None:
        """Refuse a stream that would block its worker, while the client can still be told so by a 500."""
        reason = why_not(call.facts(self._handoff, self._watch, before_headers=True)) if call.blocks_worker else None
        if reason is not None and self._stream is not None:
            error = refusal(reason)
            if self._stream.registry is not None:
                self._stream.registry.thread_use.declined = reason
            self._stream.end(CloseReason.ERROR, error)
            raise error

    def _try_hand_off(self, environ: WSGIEnvironment, caller: FrameType) -> bool:
        """Hand the client off now, where that can be. Return whether it was."""
        call = Call(environ, self._start_response, self, caller)
        self._environ = self._start_response = None
        stream, watch = self._stream, self._watch
        if stream is None or (stream.client_sees in ("end", "cut", "nothing") and not call.blocks_worker):
            return False  # the server can write what is left, but not reset a connection
        if stream.phase is DRAINED:
            return False  # it broke off just as its first bytes were taken
        registry = stream.registry
        reason = why_not(call.facts(self._handoff, watch))
        if reason is None and watch is not None:
            try:
                hand_off(stream, call, watch, self.when_over)
            except OSError as error:  # there is no descriptor to be had
                reason = str(error)
            else:
                self._stream, self._watch, self.when_over = None, None, []
                note_writer(registry, self._handoff, None)
                return True
        self.declined = str(reason)
        self._may_be_broken = call.may_be_broken
        note_writer(registry, self._handoff, self.declined)
        if registry is not None:
            registry.thread_use.take(stream, self.declined)
        if call.blocks_worker:
            stream.end(CloseReason.ERROR, refusal(str(reason)))
        return False

    def _end(self) -> Exception:
        if self._stream is None or self._stream.client_sees not in ("break", "cut"):
            return StopIteration()
        if self._may_be_broken and self._watch is not None and self._stream.client_sees == "break":
            time.sleep(BREAK_SECONDS)  # what comes with an error may be dropped
            with suppress(OSError), socket.socket(fileno=os.dup(self._watch.descriptor)) as client:
                client.send(BROKEN_CHUNK, socket.MSG_DONTWAIT)
        # A clean end would tell the client that it missed nothing. Servers take this for a client that has left.
        return BrokenPipeError(errno.EPIPE, str(self._stream.error))

    def _forget_client(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            SOCKET_MONITOR.forget(watch)


class ClosingBody:
    """The body as the server gets it, which also closes itself where it is dropped.

    A middleware may forget to call ``close()``, though it has to (PEP 3333). The stream keeps its writer alive: it
    would count as open for good, and a worker that stops would wait for it.
    """

    __slots__ = ("_close", "_next", "_process", "pieces")

    def __init__(self, pieces: Iterable[bytes], close: Callable[[], object]) -> None:
        self._close: Callable[[], object] | None = close
        self._process = os.getpid()
        self.pieces = pieces
        self._next = iter(pieces).__next__

    def __iter__(self) -> ClosingBody:
        return self

    def __next__(self) -> bytes:
        return self._next()

    def close(self) -> None:
        """Close the stream's body. Idempotent."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def __del__(self) -> None:
        # A forked child drops its copies of the parent's greenlets: their streams are the parent's.
        if not sys.is_finalizing() and self._process == os.getpid():
            self.close()


def _caller() -> FrameType:
    """Return the frame that iterates over the body that calls this."""
    caller = sys._getframe(2)  # noqa: SLF001 - there is no other way to a frame
    if caller.f_code is ClosingBody.__next__.__code__ and caller.f_back is not None:
        caller = caller.f_back
    return caller


def _client_socket(environ: WSGIEnvironment) -> int | None:
    client = next((environ[name] for name in _SOCKETS if name in environ), None)
    descriptor = -1 if client is None else int(client.fileno())
    return None if descriptor < 0 else descriptor
