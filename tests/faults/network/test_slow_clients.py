"""Clients that are stopped, or read as little as they can: no other client is disturbed, and they miss nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import decode
from tests.faults.network.network_clients import NetworkServer, Reading, Room
from tests.faults.network.network_link import Wire
from tests.faults.processes.process_servers import config
from tests.support.client import new_name
from tests.support.programs import program
from tests.support.waiting import PATIENCE, until

#: curl's exit status where a transfer is not complete.
INCOMPLETE = 18


class Curl(subprocess.Popen[bytes]):
    """A process that reads a stream into a file."""

    def __init__(self, server: NetworkServer, path: str, folder: Path) -> None:
        self._file = folder / new_name()
        options = ["--silent", "--no-buffer", "--output", str(self._file)]
        super().__init__([program("curl", "curl"), *options, server.url + path])

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait(PATIENCE)

    def events(self) -> list[Event]:
        """Return the events that it has received whole."""
        if not self._file.exists():
            return []
        return [event for event in decode(self._file.read_bytes()) if event.data is not None]


def test_stopped_client_disturbs_no_other_and_misses_nothing(server: NetworkServer, tmp_path: Path) -> None:
    """One continues within its bounds; another overflows, is cut, and reconnects."""
    late, soon = new_name(), new_name()
    server.settled()
    before = server.closed("overflow")
    with (
        Room(server) as room,
        Curl(server, room.path(late), tmp_path) as cut,
        Curl(server, room.path(soon), tmp_path) as kept,
    ):
        connection, _ = server.connection_of(late), server.connection_of(soon)
        room.publish("first")
        until(lambda: cut.events() and kept.events(), "it to be there")
        for curl in (cut, kept):
            curl.send_signal(signal.SIGSTOP)
        goes_on, most = False, 0
        while (now := server.stream(late))["open"]:
            assert len(room.sent) < 500
            most = max(most, now["pending"])
            if not goes_on and server.stream(soon)["pending"]:
                goes_on = True
                kept.send_signal(signal.SIGCONT)
                until(lambda: not server.stream(soon)["pending"], "it to have caught up")
            room.publish(f"{len(room.sent)} " + "x" * 50_000)
        assert goes_on
        assert "max_pending_bytes=1048576" in server.await_end(late, "OVERFLOW")
        assert server.closed("overflow") == before + 1
        assert 10 <= most <= 21, "events of 50,000 bytes within a bound of a megabyte"
        until(lambda: connection not in server.connections(), "its descriptor to be closed")
        room.publish("last")
        until(lambda: [event.data for event in kept.events()] == room.sent, "the other to have everything")
        cut.send_signal(signal.SIGCONT)
        assert cut.wait(PATIENCE) == INCOMPLETE
        assert room.come_back(cut.events()) == room.sent


def test_stopped_client_is_cut_at_write_timeout_and_replays(tmp_path: Path) -> None:
    name = new_name()
    with (
        NetworkServer("gevent", env=config(SSE_WRITE_SECONDS=1, SSE_MAX_PENDING_BYTES=10**9)) as server,
        Room(server, 1) as room,
        Curl(server, room.path(name), tmp_path) as curl,
    ):
        server.connection_of(name)
        room.publish("first")
        until(curl.events, "it to be there")
        curl.send_signal(signal.SIGSTOP)
        while not server.stream(name).get("pending"):
            room.publish(f"{len(room.sent)} " + "x" * 200_000)
        server.await_end(name, "DISCONNECTED")
        room.publish("last")
        curl.send_signal(signal.SIGCONT)
        assert curl.wait(PATIENCE) == INCOMPLETE
        assert room.come_back(curl.events()) == room.sent


AWKWARD = [
    "",
    " leading",
    "a\nb\n\nc",
    "trailing\n",
    "data: x",
    "\u2028 \x85 \0 \ufeff",
    "\U0001f980" * 20,
    "x" * 5_000,
]


def test_slow_client_reading_single_bytes_gets_every_event(server: NetworkServer) -> None:
    with Room(server) as room, server.connect(small=True) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 1)
        reading = Reading(raw, room, byte_by_byte=True)
        most = 0
        for number in range(160):
            room.publish(f"{number} {AWKWARD[number % len(AWKWARD)]}")
            if not number % 10:
                most = max(most, server.stream(reading.name)["pending"])
        assert most, "it is behind"
        assert reading.texts(len(room.sent)) == room.sent
        assert server.stream(reading.name)["open"]


@pytest.mark.parametrize("far", ["gevent"], indirect=True)
def test_write_timeout_spares_a_client_with_a_window_of_one_byte(far: tuple[NetworkServer, Wire]) -> None:
    """A byte takes a fifth of a second: one event takes several times ``SSE_WRITE_SECONDS``."""
    server, wire = far
    with Room(server) as room, wire.connect() as raw:
        reading = Reading(raw, room)
        room.publish("wide")
        assert reading.texts(1) == ["wide"]
        port = raw.getsockname()[1]
        wire.windows[port] = 1
        room.publish("narrow")
        until(lambda: wire.segments.get(port, []).count(1) >= 12, "a dozen bytes, one by one")
        assert server.stream(reading.name)["open"]
        wire.windows[port] = 0xFFFF
        room.publish("wide again")
        assert reading.texts(3) == room.sent
