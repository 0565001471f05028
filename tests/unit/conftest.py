"""A scheduler under the test's control, and a TCP connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture
def scheduler() -> ManualScheduler:
    return ManualScheduler()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client
