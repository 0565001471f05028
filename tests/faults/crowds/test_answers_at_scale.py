"""Answers with an end of their own, for as many clients as read at once: quick ones, slow ones, and some that leave.

``READERS=1000 pytest tests/faults/crowds/test_answers_at_scale.py`` changes how many of each kind there are;
``pytest -s`` prints the measurements.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from statistics import median

import pytest

from benchmarks.processes import raise_limits
from tests.faults.crowds.chunked_body import Body
from tests.faults.network.network_clients import reset_when_closed
from tests.support.client import get, post
from tests.support.servers import Server
from tests.support.waiting import until

#: So many clients read as fast as they can, and so many slowly.
READERS = int(os.environ.get("READERS", 100))

#: Words of each answer, and bytes of each: together far more than sockets and the stream keep for a client.
COUNT, SIZE = 60, 2_000

#: Seconds that a busy machine may take.
SLOW_SECONDS = 150.0


class Reader:
    """A client, which checks what it gets as it comes."""

    def __init__(self, number: int, port: int, *, is_slow: bool) -> None:
        self.number = number
        self.is_slow = is_slow
        self.words = 0  #: that it has got, ``[DONE]`` included
        self.is_whole = False  #: its answer has come to its end, and the body to a clean one
        self.left = 0.0  #: when it left
        self._body, self._text = Body(), b""
        self.socket = socket.socket()
        if is_slow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))

    def ask(self) -> None:
        path = f"/answer/{self.number}?count={COUNT}&size={SIZE}"
        self.socket.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def read(self) -> None:
        """Read what has come; a slow client takes little."""
        data = self.socket.recv(3_000 if self.is_slow else 65_536)
        assert data, f"{self.number} was cut after {self.words} words"
        *blocks, self._text = (self._text + self._body.take(data)).split(b"\n\n")
        for block in blocks:
            if block.startswith(b":"):
                continue
            expected = b"data: %d " % self.words if self.words < COUNT else b"data: [DONE]"
            assert block.startswith(expected), f"{self.number} got {block[:50]!r} in place of {expected!r}"
            self.words += 1
        if self._body.is_over:
            assert self.words == COUNT + 1, f"{self.number} has a clean end after {self.words} words"
            self.is_whole = True


class Readers:
    """Clients on one thread, in a ``with`` block."""

    def __init__(self, port: int) -> None:
        self.quick = [Reader(number, port, is_slow=False) for number in range(READERS)]
        self.slow = [Reader(number, port, is_slow=True) for number in range(READERS, 2 * READERS)]
        self._selector = selectors.DefaultSelector()
        for reader in self.all:
            self._selector.register(reader.socket, selectors.EVENT_WRITE, reader)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self.all:
            reader.socket.close()
        self._selector.close()

    @property
    def all(self) -> list[Reader]:
        return [*self.quick, *self.slow]

    def run_until(self, condition: Callable[[], object], what: str) -> float:
        """Let clients read until the condition holds; return the seconds that it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + SLOW_SECONDS, f"waited in vain for {what}"
            for key, events in self._selector.select(0.05):
                if events & selectors.EVENT_WRITE:
                    key.data.ask()
                    self._selector.modify(key.data.socket, selectors.EVENT_READ, key.data)
                else:
                    key.data.read()
                    if key.data.is_whole:
                        self._selector.unregister(key.data.socket)
                        key.data.socket.close()
        return time.monotonic() - began

    def pause(self, readers: Sequence[Reader]) -> None:
        for reader in readers:
            self._selector.unregister(reader.socket)

    def go_on(self, readers: Sequence[Reader]) -> None:
        for reader in readers:
            self._selector.register(reader.socket, selectors.EVENT_READ, reader)

    @staticmethod
    def leave(readers: Sequence[Reader]) -> None:
        """Disconnect clients that pause, every other one with a reset."""
        for index, reader in enumerate(readers):
            if index % 2:
                reset_when_closed(reader.socket)
            reader.left = time.monotonic()
            reader.socket.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["gthread", "gevent", "sync"])
def test_answers_for_slow_and_quick_clients_at_once_are_all_whole(kind: str) -> None:
    """All begin before any goes on. The quick ones end while the slow ones pause; some of these leave."""
    raise_limits()
    env = {"CONFIG": json.dumps({"SSE_WRITE_SECONDS": 600})}
    with Server(
        kind, "tests.apps.faults.answer_crowd:app", env=env, arguments=["--worker-connections", "20000"]
    ) as server:
        before = get(server, "/holdings")
        with Readers(server.port) as readers:
            began = readers.run_until(lambda: all(each.words for each in readers.all), "the first words")
            there = get(server, "/holdings")
            assert get(server, "/state")["pulling"] == 2 * READERS
            readers.pause(readers.slow)
            post(server, "/go")
            quick = readers.run_until(lambda: all(each.is_whole for each in readers.quick), "the quick ones")

            state = _settled(server)
            ahead = [state["pulled"][f"{each.number}"] for each in readers.slow]
            assert max(ahead) < COUNT, "a slow client's generator pauses"
            assert sorted(map(int, state["closed"])) == [each.number for each in readers.quick]

            leaving, staying = readers.slow[::5], [each for each in readers.slow if each.number % 5]
            readers.leave(leaving)
            until(lambda: len(get(server, "/state")["closed"]) == READERS + len(leaving), "the generators to be closed")
            closed = get(server, "/state")["closed"]
            delays = [closed[f"{each.number}"] - each.left for each in leaving]

            readers.go_on(staying)
            slow = readers.run_until(lambda: all(each.is_whole for each in staying), "the slow ones")
        until(lambda: get(server, "/state")["clients"] == 0, "the streams to be counted out")
        until(lambda: get(server, "/state")["pulling"] == 0, "the threads of the generators to end")
        assert len(get(server, "/state")["closed"]) == 2 * READERS
        assert "Traceback" not in server.log
    size = (there["uss"] - before["uss"]) / (2 * READERS)
    print(  # noqa: T201 - measurements
        f"\n{kind}: {2 * READERS} answers began in {began:.1f} s, with {there['threads']} threads, "
        f"{there['greenlets']} greenlets, {size / 1000:.1f} kB each; the quick ones took {quick:.1f} s, the slow ones "
        f"{slow:.1f} s; {min(ahead)} to {max(ahead)} of {COUNT} words were pulled for those that paused; the generator "
        f"was closed {median(delays):.3f} s after its client left, {max(delays):.3f} s at most"
    )


def _settled(server: Server) -> dict[str, dict[str, float]]:
    """Return the state once nothing is pulled any more."""
    last: dict[str, dict[str, float]] = {}

    def is_settled() -> bool:
        nonlocal last
        before, last = last, get(server, "/state")
        if before != last:
            time.sleep(0.2)
        return before == last

    until(is_settled, "the generators to pause")
    return last
