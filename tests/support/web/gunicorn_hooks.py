"""The settings of gunicorn_settings.py, with this package's hooks."""

import signal
from typing import Any

from flask_sse_emitters.gunicorn import post_worker_init as note_worker
from flask_sse_emitters.gunicorn import worker_int
from tests.support.web.gunicorn_settings import *  # noqa: F403

__all__ = ["post_worker_init", "worker_int"]


def post_worker_init(worker: Any) -> None:
    note_worker(worker)
    stop = signal.getsignal(signal.SIGTERM)
    assert callable(stop)
    signal.signal(signal.SIGTERM, lambda number, frame: stop(number, frame))
