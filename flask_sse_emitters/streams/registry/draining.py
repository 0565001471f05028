"""Ending all open streams when the worker stops.

A worker that stops, *drains*: new streams end at once; the open ones get what is pending, then a ``retry:`` of their
own, so that their clients do not all come back at once, then a clean end. Those that take nothing are cut after
``SSE_DRAIN_SECONDS``. Streams that are to finish (``drain="finish"``) go on, for as long as the server leaves the
worker alive, and are aborted then. So do runs, and are interrupted. Afterwards the process may exit.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from functools import cache
from itertools import islice

from ...errors import CloseReason
from ...runtime.calls import call_and_log
from ...runtime.gevent_loop import wait_while
from ...runtime.scheduler import SCHEDULER
from ...runtime.socket_monitor import SOCKET_MONITOR
from ..stream import Stream
from .open_streams import ALL, StreamRegistry

#: Are called as the process exits: before all streams end, and after. They may wait.
BEFORE_EXIT: list[Callable[[], object]] = []
AFTER_EXIT: list[Callable[[], object]] = []

log = logging.getLogger("flask_sse_emitters.streams")

#: So many streams are ended in one go; then others have their turn.
ENDED_AT_ONCE = 32

#: Seconds that a stream has after it was aborted, because it did not finish: then it is cut.
ABORT_SECONDS = 1.0

#: Seconds that the last callbacks have when all streams are over.
CALLBACK_SECONDS = 1.0


def drain(registry: StreamRegistry, grace: float = 0.0) -> None:
    """Begin to drain. Idempotent; never blocks.

    :param grace: so many seconds streams still get what is published; at most half of the time. Without it they end
        now, also where the drain has begun with it.
    """
    scheduler, seconds = registry.scheduler, registry.settings.drain_seconds
    now = scheduler.clock()
    with registry.lock:
        begins = registry.drained_by is None
        if begins:
            registry.drained_by = now + seconds
            registry.runs_by = now + registry.seconds_to_finish()
            registry.finished_by = max(now + seconds, registry.runs_by) + ABORT_SECONDS
            registry.is_ending = True
    if begins and len(registry):
        count = len(registry)
        log.info("the worker stops: %s within %g s", f"{count} streams end" if count > 1 else "1 stream ends", seconds)
    if begins or not grace:
        scheduler.call_at(now + min(grace, seconds / 2), lambda: _for_each(registry, _end))
    if begins:
        within = f"SSE_DRAIN_SECONDS={seconds:g}"

        def cut_unless_to_finish(stream: Stream) -> None:
            if not _finishes(stream):
                _cut(stream, within)

        scheduler.call_at(now + seconds, lambda: _for_each(registry, cut_unless_to_finish))
        scheduler.call_at(registry.finished_by - ABORT_SECONDS, lambda: _for_each(registry, _abort))
        scheduler.call_at(registry.finished_by, lambda: _for_each(registry, lambda stream: _cut(stream, "that time")))


def await_drained(registry: StreamRegistry) -> None:
    """Wait until all streams are over, or the time for it is. In gevent's event loop itself, do not wait."""
    by = _over_by(registry) + CALLBACK_SECONDS  # those that are cut then let go right after
    wait_while(lambda: len(registry) > 0, by, registry.scheduler.clock)


def drain_all(grace: float = 0.0) -> None:
    """Begin to drain all apps of this process. Idempotent; never blocks."""
    for registry in list(ALL):
        drain(registry, grace)


@cache
def drain_at_exit() -> None:
    """Have a process that exits drain, though nothing has told it to; also where it knows nothing of some streams."""
    atexit.register(_drain_and_wait)


def _for_each(registry: StreamRegistry, do: Callable[[Stream], object]) -> None:
    streams = iter(registry.streams())

    def some() -> bool:
        batch = list(islice(streams, ENDED_AT_ONCE))
        for stream in batch:
            do(stream)
        registry.is_ending = bool(batch)
        return registry.is_ending

    registry.scheduler.call_soon(some)


def _end(stream: Stream) -> None:
    if not _finishes(stream):
        stream.end_with_retry(CloseReason.SHUTDOWN)


def _finishes(stream: Stream) -> bool:
    """Return whether it may go on; and, where it has come to its end, whether its client may read that."""
    return stream.settings.drain == "finish"


def _over_by(registry: StreamRegistry) -> float:
    """Return the time by which all streams of a registry that drains are over."""
    if registry.drained_by is None:
        return 0.0
    return registry.finished_by if any(map(_finishes, registry.streams())) else registry.drained_by


def _abort(stream: Stream) -> None:
    stream.abort(TimeoutError("the worker stops, and the stream did not come to its end in the time that it has"))


def _cut(stream: Stream, within: str) -> None:
    error = TimeoutError(f"the worker stops, and the client did not read to the end within {within}")
    stream.end(CloseReason.DISCONNECTED, error)


def _drain_and_wait() -> None:
    for call in BEFORE_EXIT:
        call_and_log(call)
    drain_all()
    registries = list(ALL)
    by = max(map(_over_by, registries), default=0.0)
    # Only for those whose sockets are known: a stream that no server writes would never end.
    wait_while(
        lambda: len(SOCKET_MONITOR) > 0 or any(registry.is_ending for registry in registries), by, SCHEDULER.clock
    )
    runs_by = max((registry.runs_by for registry in registries), default=0.0)
    wait_while(lambda: any(registry.has_runs() for registry in registries), runs_by, SCHEDULER.clock)
    wait_while(lambda: SCHEDULER.is_calling, SCHEDULER.clock() + CALLBACK_SECONDS, SCHEDULER.clock)
    for registry in registries:
        call_and_log(registry.at_exit)
    for call in AFTER_EXIT:
        call_and_log(call)
