"""The socket of a client that was handed off, where threads are real."""

from __future__ import annotations

import _socket
import socket
import sys
import threading
import time
from contextlib import closing

import pytest

from flask_sse_emitters.writers.client_socket import take_socket

Pair = tuple[socket.socket, socket.socket]


def send_on(ours: _socket.socket, data: bytes) -> None:
    while True:
        assert 0 < ours.send(data) <= len(data)


def test_client_socket_takes_the_descriptor_and_never_blocks(pair: Pair) -> None:
    server, client = pair
    descriptor = server.fileno()
    with closing(take_socket(server)) as ours:
        assert (ours.fileno(), server.fileno(), ours.getblocking()) == (descriptor, -1, False)
        assert [ours.send(data) for data in (b"a\0b", memoryview(b"cd"))] == [3, 2]
        assert client.recv(10) == b"a\0bcd"
        with pytest.raises(BlockingIOError):
            send_on(ours, b"x" * 1_000_000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ours.send(b"x")


def test_client_socket_of_a_client_that_left_raises_its_error(pair: Pair) -> None:
    server, client = pair
    with closing(take_socket(server)) as ours:
        client.close()
        with pytest.raises(ConnectionError):
            send_on(ours, b"x")


def test_client_socket_keeps_the_gil_as_it_sends(pair: Pair) -> None:
    """A thread that computes would have it for ever, had it got it once: so the interpreter is set."""
    turns, is_over = 0, False

    def compute() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            if turns % 1_000_000 == 0:
                time.sleep(0.001)  # where a send has let go of it, this ends the test

    server, _ = pair
    interval = sys.getswitchinterval()
    with closing(take_socket(server)) as ours:
        thread = threading.Thread(target=compute)
        thread.start()
        while not turns:
            time.sleep(0)
        sys.setswitchinterval(1000)
        try:
            time.sleep(0.01)  # which gives the thread its turn, until it sleeps itself
            before = turns
            for _ in range(20_000):
                ours.send(b"x")
            after = turns
        finally:
            is_over = True
            sys.setswitchinterval(interval)
        thread.join()
    assert after == before
