"""Tasks of a Celery worker that publish their results: ``celery -A tests.apps.brokers.celery_tasks worker``.

The worker forks after importing this.
"""

from __future__ import annotations

import os

from celery import Celery

from flask_sse_emitters import Publisher
from tests.apps.cli import sse

publisher = Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))

app = Celery(__name__, broker=os.environ.get("CELERY_URL"))


def publish_as_app(channel: str, order: int) -> None:
    sse.publish(channel, {"id": order, "pid": os.getpid()}, event="app")


def publish_without_app(channel: str, order: int) -> None:
    publisher.publish(channel, {"id": order, "pid": os.getpid()}, event="publisher")


for task in (publish_as_app, publish_without_app):
    app.task(task, name=task.__name__)
