"""How a thread or a greenlet waits here, and how anybody wakes it.

gevent's patching turns ``threading`` into greenlets, and that decides how a stream waits. It does not decide how state
is guarded: a patched lock that several operating system threads fight over waits for its owner's event loop, which may
itself be waiting (measured with gevent 26.9: four of each deadlocked). So the two are kept apart.

* A :func:`guard` is a native lock in either world. It is held for a few statements that neither block, nor call
  foreign code, nor take a second guard: so no greenlet is ever switched away while it holds one.
* A :class:`Parker` lets the one thread or greenlet that made it sleep, until somebody, from any thread, wakes it.
"""

from __future__ import annotations

import threading
from itertools import count
from typing import Protocol

from .fork import reset_after_fork
from .gevent_loop import GreenletParker, is_green, unpatched

#: So many guards are shared.
SHARED_GUARDS = 64


class Guard(Protocol):
    def __enter__(self) -> bool: ...
    def __exit__(self, *exc_info: object) -> None: ...


class Parker(Protocol):
    """Wakes one sleeper.

    For each :meth:`park` one :meth:`unpark` or :meth:`give` may be called, before it or during it. A second one is a
    mistake of the caller: it raises RuntimeError where the sleeper is a thread.
    """

    def park(self) -> bytes | None:
        """Sleep until unparked; gives what :meth:`give` was given. Only by the thread or greenlet that owns this."""

    def unpark(self) -> None:
        """Wake the sleeper, or keep its next sleep from beginning. From any thread; never blocks."""

    def give(self, payload: bytes) -> None:
        """Wake the sleeper with this. Only on the main loop (see :func:`.gevent_loop.on_main_loop`)."""


def guard() -> Guard:
    """A native lock, whatever has been patched.

    Reentrant, because the garbage collector may run foreign code wherever memory is asked for, and a finalizer that
    ends a stream, say, may need the very guard that is held here.
    """
    lock: Guard = unpatched("_thread", "RLock")()
    return lock


def shared_guard() -> Guard:
    """One of a few guards that thousands of small objects share.

    A walk over thousands of clients takes the guard of each: one of its own for each would be somewhere else in memory
    every time, and cost more than all that is done under it.
    """
    return _shared.next()


class _SharedGuards:
    def __init__(self) -> None:
        self._turn = count()
        self._reset()
        reset_after_fork(self._reset)

    def next(self) -> Guard:
        return self._guards[next(self._turn) % SHARED_GUARDS]

    def _reset(self) -> None:
        self._guards = [guard() for _ in range(SHARED_GUARDS)]


def parker() -> Parker:
    """A parker for whoever calls this: a greenlet where threads are greenlets, else a thread."""
    return GreenletParker() if is_green() else _ThreadParker()


class _ThreadParker:
    __slots__ = ("_given", "_lock")

    def __init__(self) -> None:
        self._given: bytes | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def park(self) -> bytes | None:
        self._lock.acquire()
        given, self._given = self._given, None
        return given

    def unpark(self) -> None:
        self._lock.release()

    def give(self, payload: bytes) -> None:
        self._given = payload
        self._lock.release()


_shared = _SharedGuards()
