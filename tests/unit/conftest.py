"""A scheduler under the test's control, emitters with its timers, a TCP connection, and a forked child."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.unit.doubles.clock import Make, ManualScheduler, emitter_at


@pytest.fixture
def scheduler() -> ManualScheduler:
    return ManualScheduler()


@pytest.fixture
def make(scheduler: ManualScheduler) -> Make:
    return partial(emitter_at, scheduler)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], str]:
    """Call something in a forked child. Return the text of its result; "" where it raises."""

    def call_there(call: Callable[[], object]) -> str:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write_end, str(call()).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with open(read_end) as answer:
            text = answer.read()
        os.waitpid(child, 0)
        return text

    return call_there
