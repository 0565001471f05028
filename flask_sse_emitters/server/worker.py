"""The server of this process, mostly a gunicorn worker: noticing that it stops, its processes and its threads.

A worker that stops shows that in one attribute, whatever the cause: a signal, a reload, ``max_requests``. Nothing else
shows all of these, so from the first stream on that attribute is read a few times a second. The worker itself waits for
its streams to end, so they must be told to.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from ..moving.app import APPS
from ..moving.process import MOVER
from ..runtime.gevent_loop import is_green, wait_while
from ..runtime.scheduler import SCHEDULER
from ..streams.registry.draining import AFTER_EXIT, BEFORE_EXIT, drain_all, drain_at_exit

#: The worker's state is read at this interval.
POLL_SECONDS = 0.1

#: While it loads the app, and as long as workers that stop have not found it.
BOOT_SECONDS = 0.02

#: Bridges between ASGI servers and WSGI applications, which know nothing of processes, and say that there are several.
_ONE_THREAD_BRIDGE = "asgiref.wsgi"
_ASGI_BRIDGES = (_ONE_THREAD_BRIDGE, "a2wsgi.wsgi", "uvicorn.middleware.wsgi", "starlette.middleware.wsgi")

#: The names of servers, by the key that only they put into the environ, and by a module that calls the application.
_NAMES_BY_KEY = {"uwsgi.version": "uWSGI", "mod_wsgi.version": "mod_wsgi", "werkzeug.socket": "Werkzeug"}
_NAMES_BY_MODULE = {"waitress.task": "waitress", "a2wsgi.wsgi": "a2wsgi", "gevent.pywsgi": "gevent.pywsgi"}

#: gevent's worker accepts requests for up to a second after it was told to stop. Events that these publish still reach
#: its clients.
GRACE_SECONDS = 1.25

#: Streams that have not come to their end are aborted so many seconds before gunicorn's ``graceful_timeout`` is over:
#: then it kills the worker.
SECONDS_LEFT = 2.0

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


def server_name(environ: Mapping[str, Any]) -> str:
    """Return the name of the server, as far as it shows; of gunicorn also its kind of worker."""
    if "gunicorn.socket" in environ or "gunicorn.sock" in environ:
        kind = getattr(getattr(find_worker(), "cfg", None), "worker_class_str", None)
        return "gunicorn" if kind is None else f"gunicorn, {kind}"
    by_frames = (name for frame in _frames() if (name := _NAMES_BY_MODULE.get(str(frame.f_globals.get("__name__")))))
    return next((name for key, name in _NAMES_BY_KEY.items() if key in environ), None) or next(by_frames, "unknown")


def seconds_to_finish() -> float:
    """Return for how long a worker that stops may let streams go on; 0 without gunicorn.

    A worker that exits tells gunicorn no more that it is alive: so ``timeout``, where it is shorter, counts as well.
    """
    settings = getattr(find_worker(), "cfg", None)
    limits = [getattr(settings, name, 0) for name in ("graceful_timeout", "timeout")]
    return max(0.0, min(float(limit or math.inf) for limit in limits) - SECONDS_LEFT) if settings else 0.0


def threads_for_requests(environ: Mapping[str, Any]) -> int | None:
    """Return how many requests this process handles at a time, each on a thread; None where that is unknown."""
    if is_green():
        return None
    if "uwsgi.version" in environ:
        return int(getattr(sys.modules.get("uwsgi"), "opt", {}).get("threads", 1))  # a number in bytes
    if "mod_wsgi.version" in environ:
        return int(getattr(sys.modules.get("mod_wsgi"), "threads_per_process", 0)) or None
    return _threads_of_waitress() or _threads_of_a2wsgi() or _threads_of_gthread()


def is_one_of_several(environ: Mapping[str, Any]) -> bool:
    """Return whether the server runs the application in several processes, as far as it says so itself."""
    return bool(environ.get("wsgi.multiprocess")) and not any(_is_of(frame, *_ASGI_BRIDGES) for frame in _frames())


def runs_in_one_thread_bridge() -> bool:
    """Return whether the request came through asgiref's bridge, which runs all of them on one thread."""
    return _ONE_THREAD_BRIDGE in sys.modules and any(_is_of(frame, _ONE_THREAD_BRIDGE) for frame in _frames())


def _threads_of_waitress() -> int | None:
    # Waitress tells nothing about itself in the environ.
    for frame in _frames():
        if _is_of(frame, "waitress.task") and "self" in frame.f_locals:
            return int(frame.f_locals["self"].channel.server.adj.threads)
    return None


def _threads_of_a2wsgi() -> int | None:
    for frame in _frames():
        if _is_of(frame, "a2wsgi.wsgi") and "self" in frame.f_locals:
            return getattr(getattr(frame.f_locals["self"], "executor", None), "_max_workers", None)
    return None


def _threads_of_gthread() -> int | None:
    worker = find_worker()
    is_gthread = any(kind.__name__ == "ThreadWorker" for kind in type(worker).__mro__)
    return int(worker.cfg.threads) if is_gthread else None


def _is_of(frame: FrameType, *modules: str) -> bool:
    return frame.f_globals.get("__name__") in modules


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no other way to a frame
    while frame is not None:
        yield frame
        frame = frame.f_back


def watch_worker() -> None:
    """Take streams of other workers; once this one stops, give its streams away, and begin to drain what is left.

    Idempotent; never blocks.
    """
    global _watched
    worker = find_worker()
    if worker is not None and worker is not _watched:
        _watched = worker
        MOVER.note_sockets(listener.fileno() for listener in worker.sockets)  # some workers close them as they stop
        drain_at_exit()  # it may be told to stop before it has a stream, or is shown
        BEFORE_EXIT.append(lambda: _leave_before_exit(worker))
        AFTER_EXIT.append(MOVER.end)
        SCHEDULER.call_soon(lambda: _poll(worker))


def _poll(worker: Any) -> None:
    if worker.alive:
        if worker.booted:  # it has loaded the app: all rules and lists are there
            MOVER.begin()
            MOVER.look()
        seconds = POLL_SECONDS if worker.booted and MOVER.has_settled else BOOT_SECONDS
        SCHEDULER.call_at(SCHEDULER.clock() + seconds, lambda: _poll(worker))
    else:
        _leave(worker)


def _leave(worker: Any) -> None:
    """Give the streams away, then drain."""
    MOVER.begin()  # where it has served for less than a look: others are to be found
    began = SCHEDULER.clock()
    drain_seconds = max((app.settings.drain_seconds for app in APPS), default=0.0)
    MOVER.leave(int(worker.cfg.workers), began + max(0.0, seconds_to_finish() - drain_seconds))

    def drain_once_left() -> None:
        if MOVER.is_leaving:
            SCHEDULER.call_at(SCHEDULER.clock() + POLL_SECONDS, drain_once_left)
        else:
            drain_all(max(0.0, began + GRACE_SECONDS - SCHEDULER.clock()))

    drain_once_left()


def _leave_before_exit(worker: Any) -> None:
    """Wait, as the process exits, until its streams are given away."""
    if not worker.alive:
        has_begun = False

        def begin() -> None:
            nonlocal has_begun
            _leave(worker)
            has_begun = True

        SCHEDULER.call_soon(begin)
        wait_while(lambda: not has_begun or MOVER.is_leaving, SCHEDULER.clock() + seconds_to_finish(), SCHEDULER.clock)
