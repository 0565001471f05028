"""A client that was handed off: its socket, and the writer that writes a stream to it without the server.

All writes happen on one thread of the worker, in code that never switches to another greenlet: a delivery pass over a
list, or a call by the scheduler. So they exclude each other without a lock. Where threads are greenlets that is the
worker's one thread; elsewhere it is the scheduler's (see :meth:`.Scheduler.is_writer`).
"""

from __future__ import annotations

import _socket
import errno
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial

from ..errors import CloseReason
from ..runtime.calls import call_and_log
from ..runtime.gevent_loop import TIME_SLICE_SECONDS
from ..runtime.scheduler import SCHEDULER
from ..runtime.socket_monitor import SOCKET_MONITOR, Watch, drop_input
from ..runtime.timers import Timer
from ..streams.interfaces import Client
from ..streams.stream import Stream
from ..wire.frame import chunk

#: Seconds in which a client has to close its side after the last chunk; then it is closed from here.
LINGER_SECONDS = 2.0

#: A connection is broken once the client has everything: the first look comes after so many seconds.
BREAK_SECONDS = 0.05

#: A socket that takes nothing, though it was reported to have room, is tried again after so many seconds.
RETRY_SECONDS = 0.1

_LAST_CHUNK = b"0\r\n\r\n"

#: No chunk begins so. After ``Connection: close`` a mere end, and a reset, are no errors to Node's fetch, among others:
#: it takes what has come for the whole.
BROKEN_CHUNK = b"broken\r\n"

#: Has a close reset the connection: linger for 0 seconds.
_RESET = struct.pack("ii", 1, 0)


class SocketState(Enum):
    """What a socket writer does with its client."""

    OPEN = "open"  #: it writes the stream
    FINISHING = "finishing"  #: the last chunk is written, or on its way: then the client is to close its side
    MOVING = "moving"  #: it writes nothing: another process may have the client by now
    CLOSED = "closed"  #: it has let go of the client


class SocketWriter:
    """Writes a stream to the socket of its client. All methods only on the thread that writes, but those of
    :class:`.Writer`.

    :param client: the socket, non-blocking and native.
    :param chunked: whether the body is sent in chunks: not to HTTP/1.0.
    :param watch: on this socket.
    :param when_over: is called in the background when the stream is over.
    """

    declined: str | None = None

    __slots__ = (
        "_chunked",
        "_client",
        "_has_room",
        "_rest",
        "_state",
        "_stream",
        "_timer",
        "_watch",
        "_when_over",
    )

    def __init__(
        self,
        stream: Stream,
        client: _socket.socket,
        chunked: bool,
        watch: Watch,
        when_over: Sequence[Callable[[], object]],
    ) -> None:
        self._stream = stream
        self._client = client
        self._chunked = chunked
        self._watch = watch
        self._when_over = tuple(when_over)
        self._state = SocketState.OPEN
        self._rest: bytes | memoryview = b""  # what the client did not take at once
        self._has_room = False  # the system has reported room, and nothing has been written since
        self._timer: Timer | None = None  # closes a client that does not close its side

    @property
    def client(self) -> Client | None:
        """The socket, for lists; None where it does not take chunks."""
        return self._client if self._chunked else None

    def beat(self, payload: bytes) -> None:
        """Write a heartbeat."""
        framed = self._framed(payload)
        if self._rest or self._state is SocketState.MOVING:  # a finalizer has sent something, as garbage was collected
            return
        self._rest = framed
        if not self._flush() and self._state is not SocketState.CLOSED:
            self._stream.stall()

    def keep(self, data: bytes, sent: int) -> None:
        """Write the rest of the data, beyond what was sent, once the client takes more."""
        self._rest = memoryview(data)[sent:]
        self._stream.stall()
        SOCKET_MONITOR.await_room(self._watch)

    def lose(self, error: OSError) -> None:
        """End the stream: the client cannot be written to any more."""
        # Its traceback would keep the frame of the delivery, and with that all clients of its block, until the garbage
        # collector's next full collection: thousands of them, where many leave.
        self._stream.end(CloseReason.DISCONNECTED, error.with_traceback(None))
        self._close()

    def begin(self) -> bool:
        """Write what is there, and from then on what comes; where there is much, for a slice of time.

        :return: whether there is more to do now.
        """
        ends = SCHEDULER.clock() + TIME_SLICE_SECONDS
        while SCHEDULER.clock() < ends:
            if not self._flush():
                return False
            if self._state is SocketState.FINISHING:
                self._linger()
                return False
            payload = self._stream.next_output()
            if payload is None:
                self._finish()
            elif payload:
                self._rest = self._framed(payload)
            else:
                return False
        return True

    def wake(self) -> None:
        """Go on writing, soon."""
        SCHEDULER.call_soon(self.begin)

    def on_room(self) -> None:
        """Go on writing: the system reports that the client takes more."""
        self._has_room = True
        self.wake()

    def wake_with(self, payload: bytes) -> None:
        """Write this, and go on."""
        self._rest = self._framed(payload)
        if self.begin():
            self.wake()

    def cut(self) -> None:
        """Close the connection, soon."""
        SCHEDULER.call_soon(self._close)

    def unsent(self) -> int | None:
        """Return how many bytes the client has not acknowledged; None where that is unknown."""
        return SOCKET_MONITOR.unsent(self._watch)

    def acknowledged(self) -> int | None:
        """Return how many bytes the client has acknowledged; None where that is unknown."""
        return SOCKET_MONITOR.acknowledged(self._watch)

    def on_hang_up(self) -> None:
        """End the stream: the client has left. After the last chunk that is as it should be."""
        if self._state is SocketState.FINISHING:
            self._close()
        else:
            self._stream.end(CloseReason.DISCONNECTED, ConnectionResetError(errno.ECONNRESET, "the client left"))

    def on_fork(self) -> None:
        """Let go of the socket in a forked child."""
        self._client.close()  # the child's descriptor only

    def _framed(self, payload: bytes) -> bytes:
        return chunk(payload) if self._chunked else payload

    def _flush(self) -> bool:
        """Write the rest. Return False where some of it is still there, or the client is gone."""
        if self._state in (SocketState.CLOSED, SocketState.MOVING):
            return False
        had_room, self._has_room = self._has_room, False
        try:
            while self._rest:
                sent = self._client.send(self._rest)
                self._rest = memoryview(self._rest)[sent:] if sent < len(self._rest) else b""
                had_room = False
        except BlockingIOError:
            if had_room:  # a system that has no memory left for TCP takes nothing, and reports room all the time
                SCHEDULER.call_at(SCHEDULER.clock() + RETRY_SECONDS, lambda: SOCKET_MONITOR.await_room(self._watch))
            else:
                SOCKET_MONITOR.await_room(self._watch)
            return False
        except OSError as error:
            self.lose(error)
            return False
        return True

    def _finish(self) -> None:
        """End the body, unless that would tell the client that it missed nothing: nothing more will come."""
        self._state = SocketState.FINISHING
        sees = self._stream.client_sees
        if sees not in ("end", "break"):
            self._close()
        elif sees == "end" and self._chunked:
            self._rest = _LAST_CHUNK
            self._call_later(self._stream.settings.write_seconds, self._close)

    def _linger(self) -> None:
        """Let the client read to the end and close first: closing with its input unread would lose our last output.

        Close it soon; later, where it has not acknowledged everything, and still makes progress. A body that must not
        look whole is broken once the client has it: what comes with an error may be dropped.
        """
        breaks = self._stream.client_sees == "break"
        if not breaks:
            with suppress(OSError):
                self._client.shutdown(socket.SHUT_WR)
        unsent, since = self.unsent() or 0, SCHEDULER.clock()

        def look_again() -> None:
            nonlocal unsent, since
            now = self.unsent() or 0
            if 0 < now < unsent:
                unsent, since = now, SCHEDULER.clock()
            elif now == 0 or SCHEDULER.clock() >= since + self._stream.settings.write_seconds:
                self._close(breaks=breaks)
                return
            self._call_later(LINGER_SECONDS, look_again)

        self._call_later(BREAK_SECONDS if breaks else LINGER_SECONDS, look_again)

    def _call_later(self, seconds: float, call: Callable[[], object] | None) -> None:
        """Set the one timer, in place of what it was set to; 0 seconds is never."""
        timer, self._timer = self._timer, None
        if timer is not None:
            SCHEDULER.cancel(timer)
        if seconds and call is not None:
            self._timer = SCHEDULER.call_at(SCHEDULER.clock() + seconds, call)

    def _close(self, *, breaks: bool = False) -> None:
        if self._state in (SocketState.CLOSED, SocketState.MOVING):  # a stream that moves is closed once that is over
            return
        was_finishing = self._state is SocketState.FINISHING
        self._state = SocketState.CLOSED
        self._call_later(0, None)
        self._rest = b""
        SOCKET_MONITOR.forget(self._watch)
        if was_finishing:
            drop_input(self._client.fileno())
        with suppress(OSError):  # it is gone
            if breaks and self._chunked:
                self._client.send(BROKEN_CHUNK)
        with suppress(OSError):
            if breaks and not self._chunked:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:  # which reaches the client even if a forked child has the socket
                self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()
        self._stream.release(ConnectionAbortedError(errno.ECONNABORTED, "the client left"))
        if self._when_over:
            SCHEDULER.run(partial(_call_all, self._when_over))


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call_and_log(call)
