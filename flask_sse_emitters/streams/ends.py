"""How a stream can end, and the callbacks that follow: each of them once, in order, in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Literal, NamedTuple, TypeAlias

from ..errors import CloseReason
from ..runtime.locks import Lock
from ..runtime.scheduler import Scheduler

log = logging.getLogger("flask_sse_emitters.callbacks")

Kind: TypeAlias = Literal["timeout", "error", "completion"]

Pending: TypeAlias = Literal["write", "drop", "keep_first"]

#: What a client sees of an end: a clean end of a 200; a broken connection, after what is pending; one that is broken at
#: once; or nothing, as it is gone.
ClientSees: TypeAlias = Literal["end", "break", "cut", "nothing"]


class End(NamedTuple):
    """What follows an end."""

    callbacks: tuple[Kind, ...]  #: in this order
    pending: Pending  #: what happens to what has not been taken yet; "keep_first" keeps what was prepended
    client_sees: ClientSees


ENDS: dict[CloseReason, End] = {
    CloseReason.COMPLETED: End(("completion",), "write", "end"),
    CloseReason.TIMEOUT: End(("timeout", "completion"), "write", "end"),
    CloseReason.DISCONNECTED: End(("error", "completion"), "drop", "nothing"),
    CloseReason.ERROR: End(("error", "completion"), "write", "end"),
    CloseReason.OVERFLOW: End(("error", "completion"), "drop", "cut"),
    CloseReason.SHUTDOWN: End(("completion",), "write", "end"),
}


class Callbacks:
    """The callbacks of one stream. They gather until :meth:`release`; what is added later follows at once.

    One helper thread at a time calls them, so that they keep their order. Every method may be called from any thread.

    :param scheduler: gives a job to a helper thread.
    :param lock: of the stream, which is not held when any of this is called.
    """

    __slots__ = ("_context", "_end", "_error", "_gathered", "_is_calling", "_lock", "_scheduler")

    def __init__(self, scheduler: Scheduler, lock: Lock) -> None:
        self._lock = lock
        self._scheduler = scheduler
        self._gathered: tuple[tuple[Kind, Callable[..., object]], ...] = ()  # mostly empty, and small then
        self._is_calling = False  # a helper thread calls them, or is about to
        self._end: End | None = None
        self._error: BaseException | None = None
        self._context: Callable[[], AbstractContextManager[Any]] | None = None

    @property
    def are_there(self) -> bool:
        """Whether there are any."""
        return bool(self._gathered)

    def add(self, kind: Kind, call: Callable[..., object]) -> None:
        """Add a callback, which is dropped where the stream has ended in another way.

        :raises TypeError: where it cannot be called, or is an async function.
        """
        if not callable(call):
            raise TypeError(f"on_{kind} takes something to call, not {call!r}")
        if iscoroutinefunction(call):
            raise TypeError(f"on_{kind} takes a plain function, because a thread calls it, not an async one: {call!r}")
        with self._lock:
            if self._end is None or kind in self._end.callbacks:
                self._gathered += ((kind, call),)
        self._begin()

    def release(
        self, reason: CloseReason, error: BaseException | None, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """Have the callbacks of this end called, each in a context of its own. Called once."""
        end = ENDS[reason]
        with self._lock:
            self._end, self._error, self._context = end, error, context
            self._gathered = tuple(each for kind in end.callbacks for each in self._gathered if each[0] == kind)
        self._begin()

    def _begin(self) -> None:
        with self._lock:
            begins = self._end is not None and bool(self._gathered) and not self._is_calling
            self._is_calling = self._is_calling or begins
        if begins:
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
        with self._lock:
            if not self._gathered:
                self._is_calling = False
                return None
            (kind, call), *rest = self._gathered
            self._gathered = tuple(rest)
        return partial(call, self._error) if kind == "error" else call
