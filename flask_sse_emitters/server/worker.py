"""The gunicorn worker of this process, if there is one: noticing that it stops, and how many there are.

A worker that stops shows that in one attribute, whatever the cause: a signal, a reload, ``max_requests``. Nothing else
shows all of these, so from the first stream on that attribute is read a few times a second. The worker itself waits for
its streams to end, so they must be told to.
"""

from __future__ import annotations

import signal
from typing import Any

from ..runtime.scheduler import SCHEDULER
from ..streams.registry.draining import drain_all

#: The worker's state is read at this interval.
POLL_SECONDS = 0.1

#: gevent's worker accepts requests for up to a second after it was told to stop. Events that these publish still reach
#: its clients.
GRACE_SECONDS = 1.25

_noted: Any = None
_watched: Any = None


def note_worker(worker: Any) -> None:
    """Remember the worker of this process, as the hooks of :mod:`.gunicorn` give it."""
    global _noted
    _noted = worker


def find_worker() -> Any:
    """Return the worker of this process; None without one. Without the hooks, its signal handler leads to it."""
    if _noted is not None:
        return _noted
    handler = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return handler if hasattr(handler, "alive") and hasattr(handler, "cfg") else None


def worker_count() -> int:
    """Return how many worker processes gunicorn was told to start; 1 without gunicorn."""
    return int(getattr(getattr(find_worker(), "cfg", None), "workers", 1))


def thread_count() -> int | None:
    """Return how many requests this gunicorn worker handles at a time, each on a thread; None for other workers."""
    worker = find_worker()
    is_gthread = any(kind.__name__ == "ThreadWorker" for kind in type(worker).__mro__)
    return int(worker.cfg.threads) if is_gthread else None


def watch_worker() -> None:
    """Begin to drain once the worker stops. Idempotent; never blocks."""
    global _watched
    worker = find_worker()
    if worker is not None and worker is not _watched:
        _watched = worker
        _poll(worker)


def _poll(worker: Any) -> None:
    if worker.alive:
        SCHEDULER.call_at(SCHEDULER.clock() + POLL_SECONDS, lambda: _poll(worker))
    else:
        drain_all(GRACE_SECONDS)
