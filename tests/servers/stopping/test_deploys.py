"""What a worker that stops does with streams that have an end of their own: none is cut in half unnoticed."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flask_sse_emitters.testing import decode
from tests.support.board import closing_board, read, texts
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, connected, new_name
from tests.support.servers import Server
from tests.support.waiting import until

KINDS = ["gevent", "gevent_off", "gthread", "gthread_off", "sync"]


def serving(kind: str, *arguments: str) -> Server:
    return Server(kind, "tests.apps.handoff:app", arguments=arguments)


def read_whole(client: Client) -> list[str]:
    return [event.data for event in decode(client.rest())]


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_worker_lets_an_answer_finish_and_ends_pages_before(kind: str, tmp_path: Path) -> None:
    path = f"/gated/{new_name()}?file={tmp_path / 'gate'}"
    with (
        serving(kind, "--graceful-timeout", "60") as server,
        connected(server, path) as answer,
        ThreadPoolExecutor() as pool,
    ):
        with connected(server, f"/numbered/{new_name()}") as page:
            assert answer.texts(1) == ["first"]
            rest = pool.submit(read_whole, answer)
            server.signal(signal.SIGTERM)
            assert b"retry: " in page.rest()
        assert not rest.done()
        (tmp_path / "gate").touch()
        assert rest.result() == ["second", "[DONE]"]
        until(lambda: server.has_exited, "the server to exit")
        assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_worker_aborts_an_answer_that_does_not_finish_in_time(kind: str) -> None:
    with serving(kind, "--graceful-timeout", "8") as server, connected(server, f"/gated/{new_name()}") as answer:
        assert answer.texts(1) == ["first"]
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        with pytest.raises(http.client.IncompleteRead):
            answer.rest()
        assert time.monotonic() - began > 5, "it had the time that gunicorn leaves it"
        until(lambda: server.has_exited, "the server to exit")


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_worker_lets_a_run_finish_for_its_bare_readers(kind: str, tmp_path: Path) -> None:
    """Whose clients would not come back; all others end first."""
    path = f"/held/{new_name()}?file={tmp_path / 'gate'}"
    with (
        Server(kind, "tests.apps.channels:app", arguments=["--graceful-timeout", "60"]) as server,
        connected(server, path) as answer,
        ThreadPoolExecutor() as pool,
    ):
        with connected(server, f"/events/{new_name()}") as page:
            assert answer.texts(1) == ["first"]
            rest = pool.submit(read_whole, answer)
            page.read_some()
            server.signal(signal.SIGTERM)
            assert b"retry: " in page.rest()
        assert not rest.done()
        (tmp_path / "gate").touch()
        assert rest.result() == [*map(str, range(50)), "[DONE]"]
        until(lambda: server.has_exited, "the server to exit")
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


on_redis = pytest.mark.xdist_group("deploys-redis")


@on_redis
@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_stopping_worker_lets_a_run_finish_that_nobody_reads_there(
    kind: str, redis: RedisServer, tmp_path: Path
) -> None:
    name, gate = new_name(), tmp_path / "gate"
    with (
        over_redis(kind, redis, graceful_timeout=60) as server,
        closing_board(redis.url) as board,
        board.open(name) as reader,
    ):
        with connected(server, f"/held/{name}?file={gate}") as answer:
            assert answer.texts(1) == ["first"]
        server.signal(signal.SIGTERM)
        until(lambda: "Worker exiting" in server.log, "all but the run to be over")
        gate.touch()
        assert texts(read(reader, 53)) == ["first", *map(str, range(50)), "[DONE]", ""]
        until(lambda: server.has_exited, "the server to exit")
        assert "Traceback" not in server.log


@on_redis
@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_stopping_worker_interrupts_a_run_that_does_not_finish_in_time(
    kind: str, redis: RedisServer, tmp_path: Path
) -> None:
    """Before it is killed: else the run would go on for others until they took it for dead."""
    name = new_name()
    with over_redis(kind, redis, graceful_timeout=5) as server, closing_board(redis.url) as board:
        with connected(server, f"/held/{name}?file={tmp_path / 'gate'}") as answer:
            assert answer.texts(1) == ["first"]
        server.signal(signal.SIGTERM)
        until(lambda: server.has_exited, "the server to exit")
        assert board.sse.channel(name).is_complete
        with board.open(name) as late:
            events = read(late, 3)
        assert [(event.event, event.data) for event in events] == [
            (None, "first"),
            ("interrupted", '{"reason": "interrupted"}'),
            ("~end", ""),
        ]


def over_redis(kind: str, redis: RedisServer, graceful_timeout: int) -> Server:
    env = {"CONFIG": json.dumps({"SSE_BROKER_URL": redis.url})}
    return Server(kind, "tests.apps.channels:app", env=env, arguments=["--graceful-timeout", str(graceful_timeout)])
