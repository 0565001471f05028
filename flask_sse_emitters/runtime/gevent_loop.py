"""All that this package knows of gevent.

Where gevent has patched ``threading``, a thread started now is a greenlet, and all greenlets take turns in one event
loop (gevent's hub). Elsewhere none of this needs gevent: threads are real, and the system switches between them.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

#: Background work yields to others after so long.
TIME_SLICE_SECONDS = 0.001

#: Threads sleep so long to yield.
YIELD_SECONDS = 0.0005

#: Between two looks at whether something is over.
LOOK_SECONDS = 0.01

#: The most priority calls in a row; then the event loop moves on.
CALLS_IN_A_ROW = 100

#: Attributes of a hub: since when and since which turn of its loop a greenlet has kept others waiting; priority calls.
_KEPT_WAITING = "_flask_sse_emitters_kept_waiting"
_PRIORITY_CALLS = "_flask_sse_emitters_priority_calls"


def is_green() -> bool:
    """Return whether gevent has patched ``threading``, so that a thread started now is a greenlet."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def in_hub() -> bool:
    """Return whether this is gevent's event loop itself, which nothing may hold up."""
    if not is_green():
        return False
    return bool(_gevent().getcurrent() is _gevent().get_hub())


def on_main_loop() -> bool:
    """Return whether a thread started here would live: a greenlet lives in the event loop of its maker."""
    return not is_green() or bool(_gevent().get_hub().main_hub)


def unpatched(module: str, name: str) -> Any:
    """Return what a module's attribute was before any patching."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(import_module(module), name) if monkey is None else monkey.get_original(module, name)


def yield_now() -> None:
    """Let others run: background work does so after each :data:`TIME_SLICE_SECONDS`.

    A greenlet waits for one turn of the event loop, which handles all sockets and timers that are due, and waits for
    none. (``gevent.sleep(0)`` goes on before any socket was looked at, and a sleep of a fraction of a millisecond
    takes a whole one: that is the resolution of epoll.)
    """
    if is_green():
        process = os.getpid()
        _wait_one_turn()
        while process != os.getpid():  # a forked child has copies of its parent's greenlets: they sleep on
            GreenletWaiter().wait()
    else:
        time.sleep(YIELD_SECONDS)


def yield_if_due() -> None:
    """Let others run if the calling greenlet has kept them waiting for longer than :data:`TIME_SLICE_SECONDS`.

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
    elif now - since > TIME_SLICE_SECONDS:
        setattr(hub, _KEPT_WAITING, (turn, now))
        _wait_one_turn()


def pause(seconds: float) -> None:
    """Sleep, but not in gevent's event loop itself, which everything else waits for."""
    if not in_hub():
        time.sleep(seconds)


def wait_while(is_busy: Callable[[], bool], until: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Wait until something is over, or for the time to be: it is looked at every 10 ms.

    In gevent's event loop itself, do not wait.
    """
    while not in_hub() and is_busy() and clock() < until:
        pause(LOOK_SECONDS)


def _wait_one_turn() -> None:
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


def _gevent() -> Any:
    """Return gevent, which has been imported if it has patched anything."""
    return sys.modules["gevent"]


class GreenletWaiter:
    """Lets the greenlet that makes it sleep until it is woken: see :class:`.waiter.Waiter`."""

    __slots__ = ("_calls", "_process", "_waiter")

    def __init__(self) -> None:
        hub = import_module("gevent.hub").get_hub()
        self._process = os.getpid()
        self._waiter = import_module("gevent.hub").Waiter(hub)
        self._calls = _priority_calls(hub)

    def wait(self) -> bytes | None:
        """Sleep until woken; return the payload of :meth:`wake_with`."""
        while True:
            payload: bytes | None = self._waiter.get()
            self._waiter.clear()
            if self._process == os.getpid():
                return payload
            # A forked child has copies of its parent's greenlets, and of what was about to wake them: they sleep on.
            # (gevent 24 runs some of them before any hook of the fork.)

    def wake(self) -> None:
        """Wake the sleeper."""
        self._calls.call(self._waiter.switch, None)

    def wake_with(self, payload: bytes) -> None:
        """Wake the sleeper, and have its :meth:`wait` return this."""
        self._calls.call(self._waiter.switch, payload)


class PriorityCalls:
    """Makes calls in an event loop, ahead of its queue.

    The greenlets of all clients that have just come stand in that queue: when these are thousands, clients that were
    there before would wait until each of them has been served.
    """

    def __init__(self, loop: Any) -> None:
        self._calls: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._trigger = loop.async_(ref=False)
        self._trigger.priority = loop.MAXPRI
        self._trigger.start(self._run)

    def call(self, call: Callable[[Any], object], argument: Any) -> None:
        """Call soon. From any thread; never blocks."""
        self._calls.append((call, argument))
        self._trigger.send()

    def _run(self) -> None:
        for _ in range(min(len(self._calls), CALLS_IN_A_ROW)):
            call, argument = self._calls.popleft()
            call(argument)
        if self._calls:
            self._trigger.send()


def _priority_calls(hub: Any) -> PriorityCalls:
    calls: PriorityCalls | None = getattr(hub, _PRIORITY_CALLS, None)
    if calls is None:
        calls = PriorityCalls(hub.loop)
        setattr(hub, _PRIORITY_CALLS, calls)
    return calls


class GreenletSelector:
    """Waits for descriptors, as :class:`.waiter.Selector`, and goes on in the turn of the loop that finds one readable.

    gevent's own selector sends its sleeper to the end of the loop's queue, twice. When thousands of clients come at
    once, the greenlets of all of them stand in that queue, and clients that were connected before would get nothing
    until each had been served.
    """

    def __init__(self) -> None:
        hub = import_module("gevent.hub")
        self._loop = hub.get_hub().loop
        self._waiter = hub.Waiter(hub.get_hub())
        self._watchers: dict[int, tuple[Any, Callable[[], object]]] = {}
        self._stopped: set[int] = set()  # descriptors whose watchers are stopped: they would fire in each turn
        self._ready: list[int] = []
        self._sleeps = False
        self._process = os.getpid()

    def register(self, descriptor: int, call: Callable[[], object]) -> None:
        """Wait for this descriptor, too."""
        watcher = self._loop.io(descriptor, 1)
        watcher.priority = self._loop.MAXPRI
        self._watchers[descriptor] = watcher, call
        self._stopped.add(descriptor)

    def select(self, seconds: float | None) -> list[Callable[[], object]]:
        """Wait so long at most; return what was registered with the descriptors that can be read."""
        while self._stopped:
            descriptor = self._stopped.pop()
            self._watchers[descriptor][0].start(self._on_readable, descriptor)
        if not self._ready:
            self._sleep(seconds)
        ready, self._ready = self._ready, []
        return [self._watchers[descriptor][1] for descriptor in ready]

    def close(self) -> None:
        """Wait for no descriptor any more."""
        for watcher, _ in self._watchers.values():
            watcher.stop()
            watcher.close()
        self._watchers.clear()
        self._stopped.clear()
        self._ready.clear()

    def _sleep(self, seconds: float | None) -> None:
        if seconds == 0:
            yield_now()
            return
        timer = None if seconds is None else self._loop.timer(max(seconds, 0.001))  # libuv knows no less
        self._sleeps = True
        try:
            if timer is not None:
                timer.start(self._wake)
            self._waiter.get()
            while self._process != os.getpid():  # a copy in a forked child sleeps on
                self._waiter.clear()
                self._waiter.get()
        finally:
            self._sleeps = False
            self._waiter.clear()
            if timer is not None:
                timer.stop()
                timer.close()

    def _on_readable(self, descriptor: int) -> None:
        self._watchers[descriptor][0].stop()
        self._stopped.add(descriptor)
        self._ready.append(descriptor)
        self._wake()

    def _wake(self) -> None:
        if self._sleeps:
            self._sleeps = False
            self._waiter.switch(None)
