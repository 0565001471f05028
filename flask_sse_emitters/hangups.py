"""Notices clients that leave, without sending them anything.

One epoll instance watches the sockets of all clients for the end of what they send: a FIN or a reset (RFC 9293). The
scheduler's one thread watches that epoll instance. Unlike a peek at the socket, this sees an end that stands behind
bytes that nobody reads, of a client that pipelines, or of TLS. On systems without epoll a client that left is noticed
at its next heartbeat.
"""

from __future__ import annotations

import _socket
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from .parking import guard, native
from .scheduler import SCHEDULER

if sys.platform != "win32":
    import fcntl
    import termios

if TYPE_CHECKING:
    from select import epoll

log = logging.getLogger(__name__)

_RDHUP = 0x2000  # select.EPOLLRDHUP, which is missing where epoll is


class Watch:
    """One client's socket, from :meth:`Hangups.watch` to :meth:`Hangups.forget`."""

    __slots__ = ("call", "descriptor", "noticed")

    def __init__(self, descriptor: int, call: Callable[[], object]) -> None:
        self.descriptor = descriptor
        self.call = call
        self.noticed = False


class Hangups:
    """The watched sockets of this process. Every method may be called from any thread, and none blocks.

    A descriptor's number is used again as soon as a server has closed it. So whoever watches one forgets it before the
    server closes it, and all that is done to it is done under the guard.
    """

    _watches: dict[int, Watch]  # by descriptor
    _epoll: epoll | None

    def __init__(self) -> None:
        self._begin_anew()

    def watch(self, descriptor: int, call: Callable[[], object]) -> Watch:
        """Call, once and in the background, when the client at this socket has left. The call must not block."""
        watch = Watch(descriptor, call)
        with self._guard:
            opened = self._epoll is None
            if self._epoll is None:
                self._epoll = _new_epoll()
            self._watches[descriptor] = watch
            error = _register(self._epoll, descriptor)
        if opened and self._epoll is not None:
            SCHEDULER.add_reader(self._epoll.fileno(), self._notice)
        if error is not None:
            log.warning("a client that leaves is noticed at its next heartbeat only: %s", error)
        return watch

    def forget(self, watch: Watch) -> None:
        """Look no more. Again is nothing."""
        with self._guard:
            if self._watches.get(watch.descriptor) is watch:
                del self._watches[watch.descriptor]
                self._unregister(watch)

    def cut(self, watch: Watch) -> None:
        """Shut the connection down, so that a write that waits for the client fails now. Nothing, once forgotten."""
        with self._guard:
            if self._watches.get(watch.descriptor) is watch:
                _shut_down(watch.descriptor)

    def unsent(self, watch: Watch) -> int | None:
        """How many bytes written to this socket its client has not acknowledged yet; None where nobody can tell."""
        with self._guard:
            if self._watches.get(watch.descriptor) is watch:
                return _unsent(watch.descriptor)
        return None

    def __len__(self) -> int:
        return len(self._watches)

    def _begin_anew(self) -> None:
        self._guard = guard()
        self._watches = {}
        self._epoll = None

    def _notice(self) -> None:
        gone = []
        with self._guard:
            if self._epoll is not None:
                for descriptor, _ in self._epoll.poll(0):
                    watch = self._watches.get(descriptor) or Watch(descriptor, int)
                    self._unregister(watch)
                    gone.append(watch)
        for watch in gone:
            watch.call()

    def _unregister(self, watch: Watch) -> None:
        if self._epoll is not None and not watch.noticed:
            watch.noticed = True
            with suppress(OSError, ValueError):  # it was never registered
                self._epoll.unregister(watch.descriptor)


#: The watched sockets of this process.
HANGUPS = Hangups()


def _new_epoll() -> epoll | None:
    try:
        instance: epoll = native("select", "epoll")()
    except AttributeError:
        return None
    return instance


def _register(epoll: epoll | None, descriptor: int) -> OSError | ValueError | None:
    try:
        if epoll is not None:
            epoll.register(descriptor, _RDHUP)
    except (OSError, ValueError) as error:  # it cannot be watched, or is closed already
        return error
    return None


def _shut_down(descriptor: int) -> None:
    # Not through the server's socket object: that of TLS would first throw its keys away.
    handle = _socket.socket(fileno=descriptor)
    try:
        with suppress(OSError):  # it is no longer connected
            handle.shutdown(socket.SHUT_RDWR)
    finally:
        handle.detach()


def _unsent(descriptor: int) -> int | None:
    if sys.platform == "win32":
        return None
    answer = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, answer)
    except OSError:
        return None
    return int.from_bytes(answer, sys.byteorder)


def _begin_anew_in_child() -> None:
    if HANGUPS._epoll is not None:
        HANGUPS._epoll.close()  # of the child's descriptor only; the parent watches on
    HANGUPS._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_in_child)
