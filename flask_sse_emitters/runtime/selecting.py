"""How the background thread, or greenlet, waits for descriptors."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from .gevent_loop import is_green, yield_now


class Selector(Protocol):
    """Waits until one of some descriptors can be read."""

    def register(self, descriptor: int, call: Callable[[], object]) -> None:
        """Wait for this one, too."""

    def select(self, seconds: float | None) -> list[Callable[[], object]]:
        """Wait so long at most, None for as long as it takes.

        :return: what was registered with the descriptors that can be read.
        """

    def close(self) -> None:
        """Wait for none any more."""


def selector() -> Selector:
    """What one thread or greenlet waits for descriptors with: the one that calls this."""
    return _GreenletSelector() if is_green() else _ThreadSelector()


class _ThreadSelector:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, descriptor: int, call: Callable[[], object]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, call)

    def select(self, seconds: float | None) -> list[Callable[[], object]]:
        return [key.data for key, _ in self._selector.select(seconds)]

    def close(self) -> None:
        self._selector.close()


class _GreenletSelector:
    """Its sleeper goes on in the very turn of the event loop that finds something to read.

    That of gevent sends it to the end of the loop's queue, twice. When thousands of clients come at once, the greenlets
    of all of them stand in that queue: whoever was connected before got nothing until each had been served.
    """

    def __init__(self) -> None:
        hub = import_module("gevent.hub")
        self._loop = hub.get_hub().loop
        self._waiter = hub.Waiter(hub.get_hub())
        self._watchers: dict[int, tuple[Any, Callable[[], object]]] = {}
        self._quiet: set[int] = set()  # descriptors whose watchers are stopped: they would fire in each turn
        self._ready: list[int] = []
        self._sleeps = False
        self._process = os.getpid()

    def register(self, descriptor: int, call: Callable[[], object]) -> None:
        watcher = self._loop.io(descriptor, 1)
        watcher.priority = self._loop.MAXPRI
        self._watchers[descriptor] = watcher, call
        self._quiet.add(descriptor)

    def select(self, seconds: float | None) -> list[Callable[[], object]]:
        while self._quiet:
            descriptor = self._quiet.pop()
            self._watchers[descriptor][0].start(self._found, descriptor)
        if not self._ready:
            self._sleep(seconds)
        ready, self._ready = self._ready, []
        return [self._watchers[descriptor][1] for descriptor in ready]

    def close(self) -> None:
        for watcher, _ in self._watchers.values():
            watcher.stop()
            watcher.close()
        self._watchers.clear()
        self._quiet.clear()
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
            while self._process != os.getpid():  # a copy in a forked child, which sleeps on: see gevent_loop.py
                self._waiter.clear()
                self._waiter.get()
        finally:
            self._sleeps = False
            self._waiter.clear()
            if timer is not None:
                timer.stop()
                timer.close()

    def _found(self, descriptor: int) -> None:
        self._watchers[descriptor][0].stop()
        self._quiet.add(descriptor)
        self._ready.append(descriptor)
        self._wake()

    def _wake(self) -> None:
        if self._sleeps:
            self._sleeps = False
            self._waiter.switch(None)
