"""Real processes that share a Redis: what one publishes reaches the clients of all, also after Redis was restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from celery import Celery

from tests.brokers.any_server import check_streams_during_restart
from tests.support.board import closing_board, config
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import connected, get, new_name
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until
from tests.support.web.workers_server import WorkersServer, connect_to_each_worker


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
            check_streams_during_restart(redis, http, board, client, other)


def test_publish_reaches_the_clients_of_every_worker(server: RedisServer) -> None:
    channel = new_name()
    publishers: list[str] = []  # the worker of each event
    with WorkersServer("gevent", "tests.apps.channels:app", 2, env=config(server)) as http, ExitStack() as stack:
        clients = connect_to_each_worker(lambda: stack.enter_context(connected(http, f"/events/{channel}")))

        def publish() -> bool:
            answer = requests.post(f"{http.url}/publish/{channel}", json=len(publishers), timeout=PATIENCE)
            answer.raise_for_status()
            publishers.append(answer.headers["X-Worker"])
            return len(set(publishers)) == 2

        until(publish, "an event from each worker")
        expected = [str(number) for number in range(len(publishers))]
        assert [client.texts(len(expected)) for client in clients] == [expected] * len(clients)


def test_history_in_redis_outlives_all_workers(server: RedisServer) -> None:
    channel, env = new_name(), config(server)
    with Server("sync", "tests.apps.channels:app", env=env) as http, connected(http, f"/events/{channel}") as client:
        for text in ("first", "second", "third"):
            requests.post(f"{http.url}/publish/{channel}", json=text, timeout=PATIENCE).raise_for_status()
        [first, *_] = client.events(3)
    headers = {"Last-Event-ID": str(first.id)}
    with (
        Server("sync", "tests.apps.channels:app", env=env) as http,
        connected(http, f"/events/{channel}", headers=headers) as client,
    ):
        assert client.texts(2) == ["second", "third"]


@contextmanager
def celery_worker(redis: RedisServer) -> Iterator[Celery]:
    """Run a real worker, which forks; its queue is another database of the same Redis."""
    env = {**os.environ, **config(redis, SSE_PUBLISH_SECONDS=PATIENCE), "REDIS_URL": redis.url}
    env |= {"CELERY_URL": f"{redis.url}/1", "C_FORCE_ROOT": "yes"}
    command = (
        "-m celery -A tests.apps.brokers.celery_tasks worker -c 1 --pool prefork --without-gossip --without-mingle"
    )
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
