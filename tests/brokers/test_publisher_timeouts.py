"""A Publisher gets no answer: it times out, and works again once Redis does."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable, Publisher
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until

#: Other timeouts, of 60 s, that would end the attempts of these tests; and the seconds that they may take at most,
#: however busy the machine is.
OTHER_TIMEOUTS, MAX_SECONDS = "socket_timeout=60&socket_connect_timeout=60", 20.0


@contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as held:  # bound, and not listening
        held.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """The system accepts connections, and no process reads them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def full() -> Iterator[str]:
    """Attempts to connect are dropped, as by a firewall."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield f"redis://127.0.0.1:{port}"
        for each in waiting:
            each.close()


@pytest.mark.parametrize("server", [refusing, silent, full])
@pytest.mark.parametrize("seconds", [0.5, timedelta(milliseconds=500)])
def test_publisher_without_answer_times_out(server: Any, seconds: Any) -> None:
    with server() as url, Publisher(f"{url}?{OTHER_TIMEOUTS}", publish_seconds=seconds) as publisher:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="nothing was published") as raised:
            publisher.publish("x", "y")
        assert raised.value.may_be_published is False
        assert time.monotonic() - began < MAX_SECONDS


def test_publisher_threads_without_answer_time_out() -> None:
    took, errors = [], []
    with silent() as url, Publisher(f"{url}?{OTHER_TIMEOUTS}", publish_seconds=0.5) as publisher:

        def run() -> None:
            began = time.monotonic()
            try:
                publisher.publish("x", "y")
            except BrokerUnavailable as error:
                errors.append(error)
            took.append(time.monotonic() - began)

        threads = [threading.Thread(target=run) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(errors) == 20
    assert max(took) < MAX_SECONDS


def test_publisher_times_out_at_paused_redis_and_key_makes_retry_safe() -> None:
    with RedisServer() as server, Publisher(f"{server.url}?{OTHER_TIMEOUTS}", publish_seconds=0.5) as publisher:

        def attempt(key: str) -> str | None:
            try:
                return publisher.publish("x", "y", key=key)
            except BrokerUnavailable:
                return None

        first = until(lambda: attempt("first"), "a connection")
        server.signal(signal.SIGSTOP)
        for _ in range(3):
            began = time.monotonic()
            assert attempt("paused") is None
            assert time.monotonic() - began < MAX_SECONDS
        server.signal(signal.SIGCONT)
        ids = [until(partial(attempt, key), "Redis") for key in ("paused", "paused", "then")]
        epoch = str(first).split("-")[0]
        assert ids == [f"{epoch}-2", f"{epoch}-2", f"{epoch}-3"]


def test_publisher_works_again_after_redis_restart() -> None:
    with RedisServer() as server, Publisher(server.url, publish_seconds=MAX_SECONDS) as publisher:
        before = publisher.publish("x", "before")
        server.kill()
        with pytest.raises(BrokerUnavailable):
            publisher.publish("x", "away")
        server.start()
        after = publisher.publish("x", "after")
        assert before.split("-")[0] != after.split("-")[0], "nothing was kept on disk"
