"""A kernel that refuses to write: no memory, and no room though there is room."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.faults.network.network_clients import NetworkServer, Reading, Room
from tests.faults.network.network_syscalls import Syscalls
from tests.support.client import get
from tests.support.waiting import until

Judged = tuple[NetworkServer, Syscalls]

#: The hand-off retries so many times a second where a socket has room, and takes nothing.
RETRIES = 10


class Victim(Reading):
    """A client to which the worker's writes fail."""

    def __init__(self, raw: socket.socket, room: Room, syscalls: Syscalls) -> None:
        super().__init__(raw, room)
        self.connection = room.server.connection_of(self.name)
        self.failed = 0  #: number of failed writes
        self._folder = f"/proc/{get(room.server, '/process')['pid']}/fd"
        self._syscalls = syscalls

    @contextmanager
    def failing(self, code: int) -> Iterator[None]:
        """Let each write to it fail with this error."""

        def judge(descriptor: int) -> int:
            with suppress(FileNotFoundError):
                if os.readlink(f"{self._folder}/{descriptor}") == self.connection:
                    self.failed += 1
                    return code
            return 0

        self._syscalls.judge = judge
        try:
            yield
        finally:
            self._syscalls.judge = lambda _: 0


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM])
def test_write_error_for_want_of_memory_ends_that_stream_alone(code: int, judged: Judged) -> None:
    """Its client reconnects, and misses nothing."""
    server, syscalls = judged
    server.settled()
    before = server.closed("disconnected")
    with Room(server) as room, server.connect() as raw:
        victim = Victim(raw, room, syscalls)
        room.publish("first")
        assert victim.texts(1) == ["first"]
        with victim.failing(code):
            room.publish("second")
            until(lambda: victim.failed, "its send to fail")
        assert os.strerror(code) in server.await_end(victim.name, "DISCONNECTED") or server.kind != "gevent"
        room.publish("third")
        assert server.closed("disconnected") == before + 1
        until(lambda: victim.connection not in server.connections(), "its descriptor to be closed")
        got = victim.to_the_cut()
        assert [event.data for event in got] == ["first"]
        assert room.come_back(got) == room.sent


def test_write_error_amid_an_event_cuts_the_client_before_any_later_event(judged: Judged) -> None:
    server, syscalls = judged
    with Room(server) as room, server.connect(small=True) as raw:
        victim = Victim(raw, room, syscalls)
        room.publish("first")
        assert victim.texts(1) == ["first"]
        while server.stream(victim.name)["pending"] < 3:  # one may be about to be written
            room.publish(f"{len(room.sent)} " + "x" * 20_000)
        with victim.failing(errno.ENOBUFS):
            got = victim.to_the_cut()
            server.await_end(victim.name, "DISCONNECTED")
        assert [event.data for event in got] == room.sent[: len(got)]
        assert len(got) < len(room.sent)
        assert room.come_back(got) == room.sent


def test_write_refused_though_there_is_room_is_retried_now_and_then(judged: Judged) -> None:
    """EAGAIN with nothing in the socket's buffer, as where the memory for all of TCP is used up."""
    server, syscalls = judged
    with Room(server) as room, server.connect() as raw:
        victim = Victim(raw, room, syscalls)
        room.publish("first")
        assert victim.texts(1) == ["first"]
        begin = time.monotonic()
        with victim.failing(errno.EAGAIN):
            while time.monotonic() < begin + 1:
                room.publish(str(len(room.sent)))
                time.sleep(0.01)
            seconds = time.monotonic() - begin
        assert victim.texts(len(room.sent)) == room.sent
        assert server.stream(victim.name)["open"]
        assert victim.failed <= 3 + RETRIES * seconds or server.kind != "gevent", "else it is gevent that asks"
