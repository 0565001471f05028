"""A client that was handed off: its socket, and what writes an emitter's stream to it without the server.

All writes happen on the worker's one thread, in code that never switches to another greenlet: the walk over a list, or
a call by the scheduler. So they exclude each other without a lock.
"""

from __future__ import annotations

import _socket
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import CloseReason
from ..runtime.parking import SLICE
from ..runtime.scheduler import SCHEDULER, Timer
from ..runtime.socket_monitor import SOCKETS, Watch
from ..runtime.worker_pool import call_and_log
from ..streams.ends import ENDS
from ..streams.interfaces import Client
from ..streams.stream import Stream
from ..wire.frame import chunk

#: Seconds in which a client is to close its side after the last chunk; then it is closed from here.
LINGER = 2.0

#: What a client has sent is read, and dropped, in so many pieces at most before its connection is closed.
READ_AT_MOST = 8

#: A socket that takes nothing, though it was said to have room, is tried again after so many seconds.
REFUSED = 0.1

_LAST_CHUNK = b"0\r\n\r\n"


class SocketWriter:
    """One client that is written to directly: an outlet of its emitter.

    :param client: its socket, non-blocking and native.
    :param chunked: whether the body is sent in chunks: not to HTTP/1.0.
    :param watch: on this socket.
    :param when_over: what else is to be done, in the background, when the stream is over.
    """

    declined: str | None = None

    __slots__ = (
        "_chunked",
        "_client",
        "_ends",
        "_is_over",
        "_rest",
        "_roomy",
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
        self._rest: bytes | memoryview = b""  # what the client did not take at once
        self._roomy = False  # the system says that the client takes more, and has not been put to the test yet
        self._ends = False  # nothing will come after the rest
        self._is_over = False
        self._timer: Timer | None = None  # the end of our patience with a client that does not close its side

    @property
    def client(self) -> Client | None:
        return self._client if self._chunked else None

    def beat(self, payload: bytes) -> None:
        self._rest = self._framed(payload)
        if not self._flush() and not self._is_over:
            self._stream.stall()

    def keep(self, data: bytes, sent: int) -> None:
        self._rest = memoryview(data)[sent:]
        self._stream.stall()
        SOCKETS.await_room(self._watch)

    def lose(self, error: OSError) -> None:
        # Its traceback would keep the frame of the walk, and with that all clients of its block, until the garbage
        # collector's next full collection: thousands of them, where many leave.
        self._stream.end(CloseReason.DISCONNECTED, error.with_traceback(None))
        self._close()

    def begin(self) -> bool:
        """Write what is there, and from then on what comes; where there is much, for :data:`.SLICE` seconds.

        :return: whether there is more to do now.
        """
        ends = SCHEDULER.clock() + SLICE
        while SCHEDULER.clock() < ends:
            if not self._flush():
                return False
            if self._ends:
                self._linger()
                return False
            payload = self._stream.next_output()
            if payload is None:
                self._end()
            elif payload:
                self._rest = self._framed(payload)
            else:
                return False
        return True

    def wake(self) -> None:
        SCHEDULER.call_soon(self.begin)

    def has_room(self) -> None:
        self._roomy = True
        self.wake()

    def wake_with(self, payload: bytes) -> None:
        self._rest = self._framed(payload)
        if self.begin():
            self.wake()

    def cut(self) -> None:
        SCHEDULER.call_soon(self._close)

    def unsent(self) -> int | None:
        return SOCKETS.unsent(self._watch)

    def acknowledged(self) -> int | None:
        return SOCKETS.acknowledged(self._watch)

    def hung_up(self) -> None:
        if self._ends:
            self._close()
        else:
            self._stream.end(CloseReason.DISCONNECTED, ConnectionResetError(errno.ECONNRESET, "the client left"))

    def forked(self) -> None:
        self._client.close()  # the child's descriptor only

    def _framed(self, payload: bytes) -> bytes:
        return chunk(payload) if self._chunked else payload

    def _flush(self) -> bool:
        """Write the rest. False where some of it is still there, or the client is not."""
        if self._is_over:
            return False
        roomy, self._roomy = self._roomy, False
        try:
            while self._rest:
                sent = self._client.send(self._rest)
                self._rest = memoryview(self._rest)[sent:] if sent < len(self._rest) else b""
                roomy = False
        except BlockingIOError:
            self._await_room(refused=roomy)
            return False
        except OSError as error:
            self.lose(error)
            return False
        return True

    def _await_room(self, refused: bool) -> None:
        """Go on when the client takes more; with a pause where that was said, and was not so.

        A system that has no memory left for TCP takes nothing, and says all the time that there is room.
        """
        if refused:
            SCHEDULER.call_at(SCHEDULER.clock() + REFUSED, lambda: SOCKETS.await_room(self._watch))
        else:
            SOCKETS.await_room(self._watch)

    def _end(self) -> None:
        """Nothing more will come: end the body, unless that would tell the client that it missed nothing."""
        self._ends = True
        reason = self._stream.close_reason
        if reason is None or ENDS[reason].client_sees != "end":
            self._close()
        elif self._chunked:
            self._rest = _LAST_CHUNK
            self._close_within(self._stream.settings.write_seconds, self._close)

    def _linger(self) -> None:
        """Let the client read to the end and close first: what it has sent would else destroy what it is to read."""
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
        self._close_when_taken(self.unsent() or 0, SCHEDULER.clock())

    def _close_when_taken(self, unsent: int, since: float) -> None:
        """Close soon; later, where the client has not got all, and takes something now and then."""

        def look_again() -> None:
            now = self.unsent() or 0
            if now == 0 or SCHEDULER.clock() >= since + self._stream.settings.write_seconds:
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
        self._stream.release(ConnectionAbortedError(errno.ECONNABORTED, "the client left"))
        if self._when_over:
            SCHEDULER.run(self._do_when_over)

    def _read_what_is_left(self) -> None:
        """What is left unread would make the kernel reset the connection, in place of ending it."""
        with suppress(OSError):
            for _ in range(READ_AT_MOST):
                if not self._client.recv(65_536):
                    return

    def _do_when_over(self) -> None:
        for call in self._when_over:
            call_and_log(call)
