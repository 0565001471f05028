"""SIGHUP, with which gunicorn starts new workers and stops the old ones, amid streams that have an end of their own.

An answer comes to its end, or is broken at the deadline: none is cut in half unnoticed.
"""

from __future__ import annotations

import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_sse_emitters.testing import decode
from tests.support.board import config
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, connected, get, new_name
from tests.support.servers import Server
from tests.support.waiting import until

KINDS = ["gevent", "gthread", "sync"]


def reload(server: Server) -> psutil.Process:
    """Reload the app; return the worker that stops."""
    worker = psutil.Process(pid_of(server))
    server.signal(signal.SIGHUP)
    return worker


def pid_of(server: Server) -> int:
    return int(get(server, "/stats")["pid"])


def await_another(server: Server, worker: psutil.Process) -> None:
    """Wait until another worker answers."""

    def answers() -> bool:
        try:
            return pid_of(server) != worker.pid
        except (OSError, http.client.HTTPException):  # the old one drops what it has not begun to read
            return False

    until(answers, "a new worker")


def rest_of(client: Client) -> list[str]:
    return [event.data for event in decode(client.rest())]


@pytest.mark.parametrize("kind", KINDS)
def test_reload_lets_an_answer_finish_while_a_new_worker_serves(kind: str, tmp_path: Path) -> None:
    path = f"/gated/{new_name()}?file={tmp_path / 'gate'}"
    with (
        Server(kind, "tests.apps.handoff:app", arguments=["--graceful-timeout", "60"]) as server,
        connected(server, path) as answer,
        ThreadPoolExecutor() as pool,
    ):
        with connected(server, f"/numbered/{new_name()}") as page:
            assert answer.texts(1) == ["first"]
            rest = pool.submit(rest_of, answer)
            worker = reload(server)
            assert b"retry: " in page.rest()
        await_another(server, worker)
        assert not rest.done()
        (tmp_path / "gate").touch()
        assert rest.result() == ["second", "[DONE]"]
        until(lambda: not worker.is_running(), "the old worker to exit")
        assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", KINDS)
def test_reload_breaks_an_answer_that_does_not_finish_in_time(kind: str) -> None:
    with (
        Server(kind, "tests.apps.handoff:app", arguments=["--graceful-timeout", "8"]) as server,
        connected(server, f"/gated/{new_name()}") as answer,
    ):
        assert answer.texts(1) == ["first"]
        worker, began = reload(server), time.monotonic()
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.rest()
        assert time.monotonic() - began > 5, "it had the time that gunicorn leaves it"
        assert decode(caught.value.partial) == []
        until(lambda: not worker.is_running(), "the old worker to exit")
        await_another(server, worker)


@pytest.mark.parametrize("kind", KINDS)
def test_reload_of_code_that_cannot_start_ends_streams_in_order(kind: str, tmp_path: Path) -> None:
    """gunicorn then stops as a whole: streams are lost by that no more than requests are."""
    code, gate = tmp_path / "reloaded.py", tmp_path / "gate"
    code.write_text("from tests.apps.handoff import app\n")
    arguments = ["--graceful-timeout", "60", "--pythonpath", str(tmp_path)]
    with (
        Server(kind, "reloaded:app", arguments=arguments) as server,
        connected(server, f"/gated/{new_name()}?file={gate}") as answer,
        connected(server, f"/numbered/{new_name()}") as page,
    ):
        assert answer.texts(1) == ["first"]
        code.write_text("def app(:\n")
        server.signal(signal.SIGHUP)
        assert b"retry: " in page.rest(), "a clean end, and it comes back"
        until(lambda: "SyntaxError" in server.log, "the new worker to fail")
        assert not server.has_exited
        gate.touch()
        assert rest_of(answer) == ["second", "[DONE]"]
        until(lambda: server.has_exited, "the server to stop")
        assert "SIGKILL" not in server.log


@pytest.mark.parametrize("kind", KINDS)
def test_reload_ends_a_run_and_all_its_readers_know(kind: str) -> None:
    """One comes back, as pages do, and gets the rest, and that it is not all; one that cannot has a broken stream."""
    name, other = new_name(), new_name()
    with (
        RedisServer() as redis,
        Server(kind, "tests.apps.channels:app", env=config(redis)) as server,
        connected(server, f"/ask/{name}?count=100000&seconds=0.02") as page,
        connected(server, f"/ask/{other}?count=100000&seconds=0.02&bare=1") as bare,
        ThreadPoolExecutor() as pool,
    ):
        got = b""
        while b"data: 1\n" not in got:  # with it more may come
            got += page.read_some()
        assert bare.texts(2) == ["0", "1"]
        rest = pool.submit(bare.rest)
        worker = reload(server)
        got += page.rest()
        assert b"~end" not in got
        with pytest.raises(http.client.IncompleteRead) as caught:
            rest.result()
        assert b"interrupted" not in caught.value.partial
        events = decode(got)
        last = [event.id for event in events if event.id][-1]
        await_another(server, worker)
        with connected(server, f"/events/{name}", headers={"Last-Event-ID": str(last)}) as back:
            events += decode(back.rest())
    check_interrupted([(event.event, event.data) for event in events if event.data is not None])


def check_interrupted(events: list[tuple[Any, Any]]) -> None:
    numbers = [data for name, data in events if name is None]
    assert numbers == [*map(str, range(len(numbers)))]
    assert events[len(numbers) :] == [("interrupted", '{"reason": "interrupted"}'), ("~end", "")]
