"""The gunicorn worker that this process is, if it is one: that it stops, and how many there are.

A worker that stops says so in one attribute, whatever made it stop: a signal, a reload, ``max_requests``. From its
first stream on that is looked at a few times a second, because nothing else shows all of it; and a worker waits for the
end of its streams, so they must learn of it.
"""

from __future__ import annotations

import signal
from typing import Any

from ..runtime.scheduler import SCHEDULER
from ..streams.registry.draining import drain_all

#: Seconds from one look to the next.
LOOK = 0.1

#: gevent's worker goes on accepting for up to a second after it was told to stop. What is published through it by then
#: reaches its clients.
GRACE = 1.25

_noted: Any = None
_watching: Any = None


def note_worker(worker: Any) -> None:
    """This process is that worker: :mod:`.gunicorn` knows."""
    global _noted
    _noted = worker


def find_worker() -> Any:
    """This process's worker; None where there is none. Without the hooks its signal handler tells."""
    if _noted is not None:
        return _noted
    handler = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return handler if hasattr(handler, "alive") and hasattr(handler, "cfg") else None


def worker_count() -> int:
    """How many worker processes gunicorn was told to start; 1 without it."""
    return int(getattr(getattr(find_worker(), "cfg", None), "workers", 1))


def thread_count() -> int | None:
    """Return how many requests this gunicorn worker answers at a time, each on a thread; None for other workers."""
    worker = find_worker()
    is_gthread = any(kind.__name__ == "ThreadWorker" for kind in type(worker).__mro__)
    return int(worker.cfg.threads) if is_gthread else None


def watch_worker() -> None:
    """Drain when the worker stops. Idempotent."""
    global _watching
    worker = find_worker()
    if worker is not None and worker is not _watching:
        _watching = worker
        _look_at(worker)


def _look_at(worker: Any) -> None:
    if not worker.alive:
        drain_all(GRACE)
    else:
        SCHEDULER.call_at(SCHEDULER.clock() + LOOK, lambda: _look_at(worker))
