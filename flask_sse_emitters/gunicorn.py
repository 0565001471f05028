"""Hooks for ``gunicorn.conf.py``, so that streams end in order when a worker stops::

    from flask_sse_emitters.gunicorn import post_worker_init, worker_int

They work without these hooks, too, unless something else has taken the worker's signal handlers.
"""

from __future__ import annotations

from typing import Any

from .streams import drain_all
from .worker import note_worker

__all__ = ["post_worker_init", "worker_int"]


def post_worker_init(worker: Any) -> None:
    """The worker has loaded the app: once it has a stream, it is watched whether it is told to stop."""
    note_worker(worker)


def worker_int(_worker: Any) -> None:
    """The worker was told to stop at once (SIGINT or SIGQUIT): begin to drain. It is awaited when the process exits."""
    drain_all()
