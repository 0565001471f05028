"""A task of a Celery worker publishes, and clients of a server get it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from tests.support.client import connected, get, new_name
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until


@contextmanager
def celery_worker(redis: RedisServer) -> Iterator[Celery]:
    """Run a real worker, which forks; its queue is another database of the same Redis."""
    env = {
        **os.environ,
        "CONFIG": json.dumps({"SSE_BROKER_URL": redis.url, "SSE_PUBLISH_SECONDS": PATIENCE}),
        "REDIS_URL": redis.url,
        "CELERY_URL": f"{redis.url}/1",
        "C_FORCE_ROOT": "yes",
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.celery_tasks", "worker", "--concurrency", "1"]
    with tempfile.TemporaryFile("a+") as log:
        worker = subprocess.Popen(
            [*command, "--pool", "prefork", "--without-gossip", "--without-mingle"],
            cwd=ROOT,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            with Celery(broker=env["CELERY_URL"]) as celery:
                yield celery
        except BaseException:
            log.seek(0)
            print(log.read())  # noqa: T201 - pytest shows it where the test fails
            raise
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(PATIENCE)


def test_celery_task_reaches_clients_of_a_server(server: RedisServer) -> None:
    channel = new_name()
    env = {"CONFIG": json.dumps({"SSE_BROKER_URL": server.url})}
    with (
        celery_worker(server) as celery,
        Server("gthread", "tests.apps.channels:app", env=env) as http,
        connected(http, f"/events/{channel}") as client,
    ):
        until(lambda: get(http, "/stats")["channels"].get(channel), "the client")
        client.read_some()  # its position: it gets every later event
        celery.send_task("publish_as_app", [channel, 7])
        celery.send_task("publish_without_app", [channel, 8])
        events = client.events(2)
    assert {event.event: json.loads(event.data)["id"] for event in events} == {"app": 7, "publisher": 8}
    assert all(json.loads(event.data)["pid"] != os.getpid() for event in events)
