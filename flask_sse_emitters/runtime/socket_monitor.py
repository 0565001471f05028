"""Watches the sockets of all clients: which have left, though nothing was sent, and which can take more.

One epoll instance stands for all of them, and the scheduler's one thread waits for that. A client has left when what it
sends has ended: with a FIN or a reset (RFC 9293). Unlike a peek at the socket, this sees an end behind bytes that are
never read, of a client that pipelines, or of TLS. On systems without epoll a client that left is noticed at its next
heartbeat.
"""

from __future__ import annotations

import _socket
import logging
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from .fork import reset_after_fork
from .gevent_loop import unpatched
from .locks import native_lock
from .scheduler import SCHEDULER

if sys.platform != "win32":
    import fcntl
    import termios

if TYPE_CHECKING:
    from select import epoll

log = logging.getLogger("flask_sse_emitters.sockets")

_OUT = 0x004  # select.EPOLLOUT and EPOLLRDHUP, which are missing where epoll is
_RDHUP = 0x2000

#: Where the number of bytes that were acknowledged is in Linux's ``struct tcp_info``.
#:
#: ``TCP_USER_TIMEOUT`` is no substitute: it cuts live clients, since an acknowledgement need not restart its clock.
#: Measured on Linux 6.18: set to 30 s, it cut a client that read 8,000 bytes every 7.5 s (``SO_RCVBUF`` 4,096) after
#: 30.3 s, 0.2 s after its last acknowledgement. Set to 4 s, it cut one whose line passed one segment a second after
#: 4.2 s. The rule in ``Deadlines`` keeps both. The option also discards unsent bytes, so that the client sees a reset
#: (curl: 56, not 18), and Unix sockets refuse it (EOPNOTSUPP), so the timer and ``unsent`` would have to stay anyway.
_BYTES_ACKED = slice(120, 128)

#: What a client has sent is read, and dropped, in so many pieces at most before its connection is closed.
MAX_READS = 8

_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)  # Windows has none, nor a server that this is used with

#: After so many sockets others get the processor.
SOCKETS_PER_POLL = 256


class Watcher(Protocol):
    """Is notified about a socket, in the background, on the scheduler's thread. None of this may block."""

    def on_hang_up(self) -> None:
        """Note that the client has left. Called once."""

    def on_room(self) -> None:
        """Note that the socket takes bytes again. Called once after each :meth:`SocketMonitor.await_room`."""

    def on_fork(self) -> None:
        """Release the client in a forked child: it is the parent's."""


class Watch:
    """One client's socket, from :meth:`SocketMonitor.watch` to :meth:`SocketMonitor.forget`."""

    __slots__ = ("descriptor", "is_registered", "shows_hang_up", "watcher")

    def __init__(self, descriptor: int, watcher: Watcher | None) -> None:
        self.descriptor = descriptor
        self.watcher = watcher  #: None once forgotten
        self.is_registered = False  #: with epoll: that the client leaves will be noticed
        self.shows_hang_up = False  #: that the client leaves will be noticed, or has been


class SocketMonitor:
    """The watched sockets of this process. Any thread may call any method, and none blocks.

    A descriptor's number is used again as soon as it has been closed. So a watch is forgotten before its descriptor is
    closed, and all that is done to a descriptor is done under the lock. Nothing is done to one that is forgotten.
    """

    _epoll: epoll | None = None

    def __init__(self) -> None:
        self._watches: dict[int, Watch] = {}  # by descriptor
        self._reported: set[str] = set()  # reasons why sockets cannot be watched
        self._reset()
        reset_after_fork(self._reset)

    def watch(self, descriptor: int, watcher: Watcher) -> Watch:
        """Notify the watcher when the client at this socket has left."""
        watch = Watch(descriptor, watcher)
        with self._lock:
            opened, missing = self._epoll is None, None
            if self._epoll is None:
                self._epoll, missing = _new_epoll()
            self._watches[descriptor] = watch
            error = missing or _register(self._epoll, descriptor)
            watch.is_registered = watch.shows_hang_up = self._epoll is not None and error is None
        if opened and self._epoll is not None:
            SCHEDULER.add_reader(self._epoll.fileno(), self._poll)
        if error is not None:
            self._report_unwatched(error)
        return watch

    def await_room(self, watch: Watch) -> None:
        """Notify the watcher, too, when this socket, which is full, takes bytes again."""
        with self._lock:
            if self._epoll is not None and watch.is_registered:
                self._epoll.modify(watch.descriptor, _RDHUP | _OUT)

    def forget(self, watch: Watch) -> None:
        """Stop watching. Idempotent."""
        with self._lock:
            if self._watches.get(watch.descriptor) is watch:
                del self._watches[watch.descriptor]
                self._unwatch(watch)
                watch.watcher = None  # which refers to the watch: neither must wait for the garbage collector

    def cut(self, watch: Watch) -> None:
        """Shut the connection down, so that a write that waits for the client fails now."""
        with self._lock:
            if self._watches.get(watch.descriptor) is watch:
                _shut_down(watch.descriptor, socket.SHUT_RDWR)

    def stop_reading(self, watch: Watch) -> None:
        """Have a server that reads from this socket find its end at once, and drop what the client has sent.

        Left unread, as the body of a POST may be, it would make the kernel reset the connection when the server closes
        it: the client would lose what it has not read.
        """
        with self._lock:
            if self._watches.get(watch.descriptor) is watch:
                drop_input(watch.descriptor)
                _shut_down(watch.descriptor, socket.SHUT_RD)

    def unsent(self, watch: Watch) -> int | None:
        """Return how many bytes written to this socket its client has not acknowledged; None where that is unknown."""
        with self._lock:
            if self._watches.get(watch.descriptor) is watch:
                return _unsent(watch.descriptor)
        return None

    def acknowledged(self, watch: Watch) -> int | None:
        """Return how many bytes written to this socket its client has acknowledged; None where that is unknown."""
        with self._lock:
            if self._watches.get(watch.descriptor) is watch:
                return _acknowledged(watch.descriptor)
        return None

    def watchers(self) -> list[Watcher]:
        """Return the watchers of all sockets."""
        return [watcher for watch in list(self._watches.values()) if (watcher := watch.watcher) is not None]

    def __len__(self) -> int:
        """Return how many sockets are watched."""
        return len(self._watches)

    def _reset(self) -> None:
        if self._epoll is not None:
            self._epoll.close()  # only the child's descriptor; the parent's stays open
        _dead_fd.clear()
        for watcher in self.watchers():
            watcher.on_fork()
        self._lock = native_lock()
        self._watches = {}
        self._epoll = None

    def _poll(self) -> None:
        gone: list[Watch] = []
        with_room: list[Watch] = []
        with self._lock:
            if self._epoll is not None:
                for descriptor, events in self._epoll.poll(0, SOCKETS_PER_POLL):
                    watch = self._watches.get(descriptor)
                    if watch is None:
                        self._unregister(descriptor)
                    elif events == _OUT:
                        self._epoll.modify(descriptor, _RDHUP)
                        with_room.append(watch)
                    else:
                        self._unwatch(watch)
                        gone.append(watch)
        for watch in gone:
            if (watcher := watch.watcher) is not None:
                watcher.on_hang_up()
        for watch in with_room:
            if (watcher := watch.watcher) is not None:
                watcher.on_room()

    def _report_unwatched(self, error: OSError | ValueError) -> None:
        """Log each reason once."""
        if str(error) not in self._reported:
            self._reported.add(str(error))
            log.warning("clients that leave are noticed at their next heartbeat only: %s; this is logged once", error)

    def _unwatch(self, watch: Watch) -> None:
        if watch.is_registered:
            watch.is_registered = False
            self._unregister(watch.descriptor)

    def _unregister(self, descriptor: int) -> None:
        if self._epoll is not None:
            with suppress(OSError, ValueError):  # closed already
                self._epoll.unregister(descriptor)


_dead_fd: list[epoll | _socket.socket] = []  # in a forked child: stands for the parent's clients

#: The watched sockets of this process.
SOCKET_MONITOR = SocketMonitor()


def _new_epoll() -> tuple[epoll | None, OSError | None]:
    try:
        instance: epoll = unpatched("select", "epoll")()
    except AttributeError:  # this system has none
        return None, None
    except OSError as error:  # it has no descriptor for one now
        return None, error
    return instance, None


def _register(epoll: epoll | None, descriptor: int) -> OSError | ValueError | None:
    try:
        if epoll is not None:
            epoll.register(descriptor, _RDHUP)
    except (OSError, ValueError) as error:  # it cannot be watched, or is closed already
        return error
    return None


def _shut_down(descriptor: int, how: int) -> None:
    # Not through the server's socket object: one of TLS would first drop its keys.
    handle = _socket.socket(fileno=descriptor)
    try:
        with suppress(OSError):  # it is no longer connected
            handle.shutdown(how)
    finally:
        handle.detach()


def drop_input(descriptor: int) -> None:
    """Read and drop what the client has sent: left unread, it would make the kernel reset the connection."""
    handle = _socket.socket(fileno=descriptor)
    try:
        with suppress(OSError):  # there is nothing more, now
            for _ in range(MAX_READS):
                if not handle.recv(65_536, _DONT_WAIT):
                    return
    finally:
        handle.detach()


def replace_with_dead_fd(descriptor: int) -> None:
    """Release the parent's client in a forked child, so that nothing here can write to it or keep it connected.

    The descriptor is not closed but made to stand for something that never becomes ready: under gevent, copies of the
    parent's greenlets may still wait for it, and the event loop aborts where it is gone.
    """
    with suppress(OSError):
        if not _dead_fd:  # one descriptor for all, with nothing to wait for
            instance, _ = _new_epoll()
            _dead_fd.extend([instance] if instance is not None else unpatched("socket", "socketpair")())
        os.dup2(_dead_fd[0].fileno(), descriptor, inheritable=False)


def _unsent(descriptor: int) -> int | None:
    if sys.platform == "win32":
        return None
    answer = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, answer)
    except OSError:
        return None
    return int.from_bytes(answer, sys.byteorder)


def _acknowledged(descriptor: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        handle = _socket.socket(fileno=descriptor)
    except OSError:  # it is closed
        return None
    try:
        info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.stop)
    except OSError:  # it is not TCP
        return None
    finally:
        handle.detach()
    return int.from_bytes(info[_BYTES_ACKED], sys.byteorder) or None  # 0, or too short: this system does not count
