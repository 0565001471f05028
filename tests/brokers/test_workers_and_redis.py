"""Real processes that share a Redis: workers of gunicorn survive its restart, and a task of Celery reaches clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery

from tests.support.board import closing_board, config
from tests.support.client import connected, get, new_name, post
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_workers_keep_streams_during_redis_restart(kind: str) -> None:
    """Once they shut down, they are no longer counted."""
    arguments = ["--workers", "2", "--graceful-timeout", f"{PATIENCE:.0f}"]  # gunicorn kills workers that take longer
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as redis, closing_board(redis.url) as board:
        env = config(redis, SSE_MAX_CLIENTS=5, SSE_DRAIN_SECONDS=0.2)
        with (
            Server(kind, "tests.apps.channels:app", env=env, arguments=arguments) as http,
            connected(http, "/events/a") as client,
            connected(http, "/events/a") as other,
        ):
            post(http, "/publish/a", 1)
            assert (client.texts(1), other.texts(1)) == (["1"], ["1"])
            redis.kill()
            with pytest.raises(AssertionError, match="Internal Server Error"):
                post(http, "/publish/a", 2)
            received = b""
            while received.count(b":\n") < 5:  # heartbeats continue
                received += client.read_some()
            redis.start()
            until(lambda: get(http, "/stats")["broker"]["state"] == "ok", "Redis to be back")
            post(http, "/publish/a", 3)
            assert (client.texts(1), other.texts(1)) == (["3"], ["3"])
            assert get(http, "/stats")["warnings"] == []
            until(lambda: board.sse.channel("a").subscribers() == 2, "their clients")
            until(board.sse.processes, "their figures")
            http.stop()  # waits until they have ended
            assert (board.sse.channel("a").subscribers(), board.sse.processes()) == (0, [])


@contextmanager
def celery_worker(redis: RedisServer) -> Iterator[Celery]:
    """Run a real worker, which forks; its queue is another database of the same Redis."""
    env = {**os.environ, **config(redis, SSE_PUBLISH_SECONDS=PATIENCE), "REDIS_URL": redis.url}
    env |= {"CELERY_URL": f"{redis.url}/1", "C_FORCE_ROOT": "yes"}
    command = "-m celery -A tests.apps.celery_tasks worker -c 1 --pool prefork --without-gossip --without-mingle"
    worker = subprocess.Popen([sys.executable, *command.split()], cwd=ROOT, env=env, start_new_session=True)
    try:
        with Celery(broker=env["CELERY_URL"]) as celery:
            yield celery
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(PATIENCE)


def test_celery_task_reaches_clients_of_a_server(server: RedisServer) -> None:
    channel = new_name()
    with (
        celery_worker(server) as celery,
        Server("gthread", "tests.apps.channels:app", env=config(server)) as http,
        connected(http, f"/events/{channel}") as client,
    ):
        until(lambda: get(http, "/stats")["channels"].get(channel), "the client")
        client.read_some()  # its position: it gets every later event
        celery.send_task("publish_as_app", [channel, 7])
        celery.send_task("publish_without_app", [channel, 8])
        events = client.events(2)
    assert {event.event: json.loads(event.data)["id"] for event in events} == {"app": 7, "publisher": 8}
    assert all(json.loads(event.data)["pid"] != os.getpid() for event in events)
