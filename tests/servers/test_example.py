"""The example with many workers, and its ``gunicorn.conf.py``. Its pages are in ``browser/example``."""

from __future__ import annotations

import json
import runpy
import signal
from contextlib import ExitStack
from multiprocessing import cpu_count
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters.testing import decode
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, answer, connected, get, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import until
from tests.support.web.workers_server import WorkersServer, connect_to_each_worker

CONFIG = ROOT / "gunicorn.conf.py"

JSON = {"Content-Type": "application/json"}

#: Where the answer of ``tests/apps/held_answers.py`` pauses.
BEGUN = ["No", "language", "model", "has", "read"]

END = b"event: ~end\nid: ~end\ndata:\n\n"


@pytest.mark.parametrize(
    ("env", "workers"),
    [
        ({}, 1),
        ({"WEB_CONCURRENCY": "7"}, 1),
        ({"SSE_BROKER_URL": ""}, 1),
        ({"SSE_BROKER_URL": "memory://"}, 1),
        ({"SSE_BROKER_URL": "redis://localhost"}, 2 * cpu_count()),
        ({"SSE_BROKER_URL": "redis+cluster://a,b", "WEB_CONCURRENCY": "7"}, 7),
    ],
)
def test_example_gunicorn_conf_uses_many_workers_with_a_shared_broker(
    env: dict[str, str], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSE_BROKER_URL", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert runpy.run_path(str(CONFIG))["workers"] == workers


def test_example_unreadable_notices_file_is_logged_and_kept(tmp_path: Path) -> None:
    """A machine that lost its power may leave such a file."""
    file = tmp_path / "notices.json"
    posted = json.dumps({"text": "hi"}), {"Content-Type": "application/json"}
    with Server("werkzeug", "example_app:app", env={"NOTICES_FILE": str(file)}) as server:
        for number, content in enumerate([b"", b'[{"id": "1", "au', b"\xff"], start=1):
            file.write_bytes(content)
            assert answer(server, "GET", "/notices")[0] == 503
            assert answer(server, "POST", "/notices", *posted)[0] == 503
            assert server.log.count(f"{file} does not hold notices, move it away") == 2 * number
            assert file.read_bytes() == content


def serve_notices(url: str, stack: ExitStack) -> Server:
    """Start the example with this broker and three workers, each of which serves all notices."""
    env = {"SSE_BROKER_URL": url, "WEB_CONCURRENCY": "3"}
    arguments = ["--config", str(CONFIG)]
    server = stack.enter_context(Server("gevent", "example_app:app", env=env, arguments=arguments))
    clients = [stack.enter_context(connected(server, "/events/notices")) for _ in range(12)]
    assert server.log.count("Booting worker") == 3
    texts = [post(server, "/notices", {"text": f"notice {number}"})["text"] for number in range(5)]
    for client in clients:
        assert [json.loads(event.data)["text"] for event in client.events(5)] == texts
    for _ in range(6):
        assert [notice["text"] for notice in get(server, "/notices")] == texts[::-1]
    return server


@pytest.mark.xdist_group("postgresql")
def test_example_with_postgresql_serves_notices_from_every_worker(postgresql: PostgresqlServer) -> None:
    with ExitStack() as stack:
        server = serve_notices(postgresql.new_database(), stack)
        for number in range(60):
            post(server, "/notices", {"text": f"later {number}"})
        assert len(get(server, "/notices")) == 50


def test_example_with_redis_serves_the_notices_whichever_worker_answers() -> None:
    with RedisServer() as redis, ExitStack() as stack:
        server = serve_notices(redis.url, stack)
        with connected(server, "/live") as chart:
            assert [event.event for event in chart.events(1)] == ["samples"]
            until(lambda: json.loads(chart.texts(1)[0])["clients"] == 13, "all clients to be counted")
        redis.kill()
        post_failed: Any = answer(
            server, "POST", "/notices", json.dumps({"text": "lost"}), {"Content-Type": "application/json"}
        )
        assert post_failed[0] == 503
        assert b"cannot be reached" in post_failed[1]


@pytest.mark.timeout(120)
def test_example_answer_with_redis_is_read_and_stopped_in_any_worker(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    with RedisServer() as redis, ExitStack() as stack:
        env = {"SSE_BROKER_URL": redis.url, "ANSWERS_HELD": str(held)}
        app, arguments = "tests.apps.held_answers:app", ["--config", str(CONFIG)]
        server = stack.enter_context(WorkersServer("gevent", app, 2, env=env, arguments=arguments))

        def ask() -> str:
            """Ask, and return the worker that writes the answer."""
            body = json.dumps({"question": "Who writes?"})
            with connected(server, "/answer", method="POST", body=body, headers=JSON) as client:
                assert client.response.status == 204
                return client.response.headers["X-Worker"]

        def read() -> Client:
            client = Client(server, "/events/answer")
            stack.callback(client.close)
            return client

        def stops_elsewhere() -> bool:
            writer = ask()
            readers = connect_to_each_worker(read)
            for reader in readers:
                assert [event.data for event in reader.events(6)][1:] == BEGUN
            with connected(server, "/answer", method="DELETE") as client:
                assert json.loads(client.rest()) == {"was_running": True}
                stopper = client.response.headers["X-Worker"]
            assert {reader.rest() for reader in readers} == {END}
            return stopper != writer

        until(stops_elsewhere, "an answer that another worker stops")


@pytest.mark.timeout(120)
def test_example_answer_with_redis_goes_on_while_workers_reload(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    with RedisServer() as redis, ExitStack() as stack:
        env = {"SSE_BROKER_URL": redis.url, "ANSWERS_HELD": str(held), "WEB_CONCURRENCY": "2"}
        arguments = ["--config", str(CONFIG)]
        server = stack.enter_context(Server("gevent", "tests.apps.held_answers:app", env=env, arguments=arguments))
        assert answer(server, "POST", "/answer", json.dumps({"question": "Who stops?"}), JSON)[0] == 204
        with connected(server, "/events/answer") as reader:
            reader.events(6)
            server.signal(signal.SIGHUP)
            until(lambda: "moved to other workers: 1" in server.log, "the reader to be with a new worker")
            held.unlink()
            got = decode(reader.rest())
        assert [event.event for event in got[-2:]] == ["done", "~end"]
        assert len(got) == 47 - 5 + 2
