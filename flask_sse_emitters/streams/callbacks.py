"""How a stream can end, and the callbacks that follow each end: each of them once, in order, in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias

from ..errors import CloseReason
from ..runtime.parking import Guard, guard
from ..runtime.scheduler import Scheduler
from ..runtime.worker_pool import weakly

log = logging.getLogger("flask_sse_emitters.callbacks")

Kind: TypeAlias = Literal["timeout", "error", "completion"]


_FOLLOWING: dict[CloseReason, tuple[Kind, ...]] = {
    CloseReason.COMPLETED: ("completion",),
    CloseReason.TIMEOUT: ("timeout", "completion"),
    CloseReason.DISCONNECTED: ("error", "completion"),
    CloseReason.ERROR: ("error", "completion"),
    CloseReason.OVERFLOW: ("error", "completion"),
    CloseReason.SHUTDOWN: ("completion",),
}


class Countdown:
    """Calls a method once it has been called so many times itself, by any thread. Does not keep the object alive."""

    __slots__ = ("_call", "_guard", "_left")

    def __init__(self, count: int, call: Callable[[], object]) -> None:
        self._call = weakly(call)
        self._guard = guard()
        self._left = count

    def __call__(self) -> None:
        with self._guard:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._call()

    @property
    def is_over(self) -> bool:
        return self._left <= 0


class Callbacks:
    """Those of one emitter. They gather until :meth:`release`; what comes later follows at once, if it applies.

    One helper thread at a time works through them, so that they keep their order. Every method may be called from any
    thread.

    :param scheduler: gives a job to a helper thread.
    :param guard: that of the emitter, which does not hold it when it calls any of this.
    """

    __slots__ = ("_calling", "_context", "_error", "_gathered", "_guard", "_reason", "_scheduler")

    def __init__(self, scheduler: Scheduler, guard: Guard) -> None:
        self._guard = guard
        self._scheduler = scheduler
        self._gathered: list[tuple[Kind, Callable[..., object]]] = []
        self._calling = False  # a helper thread is at them, or on its way
        self._reason: CloseReason | None = None
        self._error: BaseException | None = None
        self._context: Callable[[], AbstractContextManager[Any]] | None = None

    def add(self, kind: Kind, call: Callable[..., object]) -> None:
        if not callable(call):
            raise TypeError(f"on_{kind} takes something to call, not {call!r}")
        if iscoroutinefunction(call):
            raise TypeError(f"on_{kind} takes a plain function, because a thread calls it, not an async one: {call!r}")
        with self._guard:
            if self._reason is None or kind in _FOLLOWING[self._reason]:
                self._gathered.append((kind, call))
        self._begin()

    def release(
        self, reason: CloseReason, error: BaseException | None, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """The stream has ended. Each callback will be entered in a context of its own."""
        with self._guard:
            self._reason, self._error, self._context = reason, error, context
            self._gathered = [entry for kind in _FOLLOWING[reason] for entry in self._gathered if entry[0] == kind]
        self._begin()

    def _begin(self) -> None:
        with self._guard:
            begin = self._reason is not None and bool(self._gathered) and not self._calling
            self._calling = self._calling or begin
        if begin:
            self._scheduler.run(self._call_all)

    def _call_all(self) -> None:
        assert self._context is not None
        while (call := self._next()) is not None:
            try:
                with self._context():
                    call()
            except BaseException:  # SystemExit, too: it ends neither the helper thread nor the other callbacks
                log.exception("an error in the callback %r of an emitter", call)

    def _next(self) -> Callable[[], object] | None:
        with self._guard:
            if not self._gathered:
                self._calling = False
                return None
            kind, call = self._gathered.pop(0)
        return partial(call, self._error) if kind == "error" else call
