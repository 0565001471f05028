"""Hooks for ``gunicorn.conf.py``, so that streams end in order when a worker stops::

    from flask_sse_emitters.gunicorn import child_exit, post_worker_init, worker_int

They work without these hooks, too, unless something else has taken the worker's signal handlers. ``child_exit`` is for
metrics of several workers alone, where a worker may be killed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from .server.worker import note_worker
from .streams.registry.draining import drain_all

__all__ = ["child_exit", "post_worker_init", "worker_int"]


def post_worker_init(worker: Any) -> None:
    """The worker has loaded the app: once it has a stream, it is watched whether it is told to stop."""
    note_worker(worker)


def worker_int(_worker: Any) -> None:
    """The worker was told to stop at once (SIGINT or SIGQUIT): begin to drain. It is awaited when the process exits."""
    drain_all()


def child_exit(_server: Any, worker: Any) -> None:
    """The worker is gone: what it had open no longer counts in the metrics, however it ended.

    In gunicorn's own process. Without ``PROMETHEUS_MULTIPROC_DIR`` it does nothing. It sees to all gauges that
    prometheus_client keeps for live processes, also to those of your own.
    """
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return
    with suppress(ModuleNotFoundError):  # then nobody has any metrics, and gunicorn must not end over it
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
