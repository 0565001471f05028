"""Hooks for ``gunicorn.conf.py``, with which streams move or end in order when a worker stops.

::

    from flask_sse_emitters.gunicorn import child_exit, post_worker_init, worker_int

So they do without these hooks, too, unless other code has replaced the worker's signal handlers. With
``preload_app`` a worker can be given streams before its first one only with ``post_worker_init``.
``child_exit`` matters only for the metrics of several workers, where a worker may be killed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from .moving.app import APPS
from .moving.process import MOVER
from .server.worker import note_worker, watch_worker
from .streams.registry.draining import drain_all

__all__ = ["child_exit", "post_worker_init", "worker_int"]


def post_worker_init(worker: Any) -> None:
    """Note the worker, which has loaded the app: it may be given streams of others, and is seen to stop."""
    note_worker(worker)
    if APPS:
        MOVER.expect()
        watch_worker()


def worker_int(_worker: Any) -> None:
    """Begin to drain: the worker stops at once (SIGINT or SIGQUIT). The process waits for the end of it as it exits."""
    drain_all()


def child_exit(_server: Any, worker: Any) -> None:
    """Remove the worker's open streams from the metrics once it has ended, however it did.

    Runs in gunicorn's own process. It does nothing without ``PROMETHEUS_MULTIPROC_DIR``. It covers all gauges that
    prometheus_client keeps for live processes, your own included.
    """
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return
    with suppress(ModuleNotFoundError):  # without it there are no metrics, and gunicorn must not fail
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
