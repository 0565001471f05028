"""What a worker that stops does with streams that have an end of their own: none is cut in half unnoticed."""

from __future__ import annotations

import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flask_sse_emitters.testing import decode
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
