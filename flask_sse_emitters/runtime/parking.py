"""How a thread or a greenlet waits here, and how anybody wakes it.

gevent's patching turns ``threading`` into greenlets, and that decides how a stream waits. It does not decide how state
is guarded: a patched lock that several operating system threads fight over waits for its owner's event loop, which may
itself be waiting (measured with gevent 26.9: four of each deadlocked). So the two are kept apart.

* A :func:`guard` is a native lock in either world. It is held for a few statements that neither block, nor call
  foreign code, nor take a second guard: so no greenlet is ever switched away while it holds one.
* A :class:`Parker` lets the one thread or greenlet that made it sleep, until somebody, from any thread, wakes it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from itertools import count
from typing import Any, Protocol
from weakref import WeakSet

#: After so many seconds of work in one go, others get the processor for a moment.
SLICE, BREATH = 0.001, 0.0005


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
        """Wake the sleeper with this. Only on the main loop (see :func:`on_main_loop`)."""


def is_green() -> bool:
    """Whether gevent has patched ``threading``, so that a thread started now is a greenlet."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def guard() -> Guard:
    """A native lock, whatever has been patched.

    Reentrant, because the garbage collector may run foreign code wherever memory is asked for, and a finalizer that
    ends a stream, say, may need the very guard that is held here.
    """
    lock: Guard = native("_thread", "RLock")()
    return lock


def shared_guard() -> Guard:
    """One of a few guards that thousands of small objects share.

    A walk over thousands of clients takes the guard of each: one of its own for each would be somewhere else in memory
    every time, and cost more than all that is done under it.
    """
    return _shared[next(_turn) % SHARED_GUARDS]


def _make_shared() -> list[Guard]:
    return [guard() for _ in range(SHARED_GUARDS)]


def parker() -> Parker:
    """A parker for whoever calls this: a greenlet where threads are greenlets, else a thread."""
    return _GreenletParker() if is_green() else _ThreadParker()


def on_main_loop() -> bool:
    """Whether a thread started here would live: under gevent a greenlet lives in the event loop of its maker."""
    return not is_green() or bool(_gevent().get_hub().main_hub)


def give_way() -> None:
    """Let others have the processor: who works in the background does so after each :data:`SLICE`.

    Where threads are greenlets this is one turn of the event loop, which sees to all sockets and timers that are due,
    and does not wait for any. (``gevent.sleep(0)`` goes on before any socket was looked at, and a sleep of a fraction
    of a millisecond is one of a whole one: that is the resolution of epoll.)
    """
    if is_green():
        process = os.getpid()
        _turn_loop()
        while process != os.getpid():  # a forked child has copies of its parent's greenlets: they sleep on
            parker().park()
    else:
        time.sleep(BREATH)


def give_way_in_time() -> None:
    """Let others run, where the calling greenlet has kept them waiting for longer than a :data:`SLICE`.

    The time runs from the first call since the event loop last ran. Does nothing on threads, which the system switches,
    and in the event loop itself.
    """
    if not is_green() or in_hub():
        return
    hub, now = _gevent().get_hub(), time.monotonic()
    turn = getattr(hub.loop, "iteration", None)  # which libuv's loop does not have
    last_turn, since = getattr(hub, _KEPT_WAITING, (-1, now))
    if turn != last_turn:
        setattr(hub, _KEPT_WAITING, (turn, now))
    elif now - since > SLICE:
        setattr(hub, _KEPT_WAITING, (turn, now))
        _turn_loop()


def pause(seconds: float) -> None:
    """Sleep, but not in gevent's event loop itself, which everybody else waits for."""
    if not in_hub():
        time.sleep(seconds)


def _turn_loop() -> None:
    hub = _gevent().get_hub()
    after_sockets = hub.loop.check(priority=-2)
    no_wait = hub.loop.idle()
    no_wait.start(int)
    try:
        hub.wait(after_sockets)
    finally:
        no_wait.stop()
        no_wait.close()
        after_sockets.close()


def in_hub() -> bool:
    """Whether this is gevent's event loop itself, which nothing may hold up."""
    if not is_green():
        return False
    return bool(_gevent().getcurrent() is _gevent().get_hub())


def native(module: str, name: str) -> Any:
    """What the module's attribute was before any patching."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(import_module(module), name) if monkey is None else monkey.get_original(module, name)


def _gevent() -> Any:
    """It is there, where it has patched anything."""
    return sys.modules["gevent"]


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


class _GreenletParker:
    __slots__ = ("_express", "_process", "_waiter")

    def __init__(self) -> None:
        hub = import_module("gevent.hub").get_hub()
        self._process = os.getpid()
        self._waiter = import_module("gevent.hub").Waiter(hub)
        self._express = _express_of(hub)

    def park(self) -> bytes | None:
        while True:
            given: bytes | None = self._waiter.get()
            self._waiter.clear()
            if self._process == os.getpid():
                return given
            # A forked child has copies of its parent's greenlets, and of what was about to wake them: they sleep on.
            # (gevent 24 runs some of them before any hook of the fork.)

    def unpark(self) -> None:
        self._express.call(self._waiter.switch, None)

    def give(self, payload: bytes) -> None:
        self._express.call(self._waiter.switch, payload)


class _Express:
    """Calls in an event loop, ahead of its queue.

    In that queue stand the greenlets of all clients that have just come: when these are thousands, whoever was there
    before would wait for each of them to be served.
    """

    def __init__(self, loop: Any) -> None:
        self._calls: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._bell = loop.async_(ref=False)
        self._bell.priority = loop.MAXPRI
        self._bell.start(self._run)

    def call(self, call: Callable[[Any], object], argument: Any) -> None:
        """Soon. From any thread; never blocks."""
        self._calls.append((call, argument))
        self._bell.send()

    def _run(self) -> None:
        for _ in range(min(len(self._calls), CALLS_AT_ONCE)):
            call, argument = self._calls.popleft()
            call(argument)
        if self._calls:
            self._bell.send()


def _express_of(hub: Any) -> _Express:
    express: _Express | None = getattr(hub, _EXPRESS, None)
    if express is None:
        express = _Express(hub.loop)
        setattr(hub, _EXPRESS, express)
    return express


#: So many calls are made ahead of an event loop's queue; then that moves on.
CALLS_AT_ONCE = 100

#: The attribute of a hub that keeps since when the others have waited, and the turn of the loop in which that was.
_KEPT_WAITING = "_flask_sse_emitters_kept_waiting"

#: The attribute of a hub that keeps what calls in its loop.
_EXPRESS = "_flask_sse_emitters_express"

_turn = count()
_shared = _make_shared()


class _BeginsAnew(Protocol):
    def _begin_anew(self) -> None: ...


def begin_anew_in_child(thing: _BeginsAnew) -> None:
    """Have a forked child begin anew with this: it has none of its parent's threads, connections and clients.

    Nor does anybody there let go of the guards that others held at the fork.
    """
    _to_begin_anew.add(thing)


_to_begin_anew: WeakSet[_BeginsAnew] = WeakSet()


def _in_child() -> None:
    _shared[:] = _make_shared()
    for thing in list(_to_begin_anew):
        thing._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
