"""Faults of the network, made for real: each affects its own client and no other."""

from __future__ import annotations

import errno
import http.client
import json
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import EventDecoder, decode
from flask_sse_emitters.writers.socket_writer import RETRY_SECONDS
from tests.faults.network_link import FarServer, Wire
from tests.faults.network_syscalls import Send, Syscalls
from tests.support.client import Client, connected, get, new_name, post
from tests.support.programs import program
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.network_faults:app"

#: Hand-off, a greenlet for each client, and a thread for each.
KINDS = ["gevent", "gevent_off", "gthread"]

_RESET = struct.pack("ii", 1, 0)


def settings(**config: Any) -> dict[str, str]:
    return {"CONFIG": json.dumps(config)}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, APP, env=settings()) as server:
        yield server
        server.kill()  # an orderly stop takes seconds


# helpers


class Room:
    """A channel, its healthy readers, and all that was published there."""

    def __init__(self, server: Server, readers: int = 3) -> None:
        self.server = server
        self.channel = new_name()
        self.sent: list[str] = []
        self.slowest = 0.0  #: seconds from a publish until the last healthy reader had it
        self._readers = [Client(server, self.path("")) for _ in range(readers)]

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for reader in self._readers:
            reader.close()

    def path(self, name: str) -> str:
        return f"/events/{self.channel}?name={name}"

    def publish(self, text: str) -> None:
        """Publish to the channel, and read it with all healthy readers."""
        begin = time.monotonic()
        self.publish_only(text)
        for reader in self._readers:
            assert reader.texts(1) == [text]
        self.slowest = max(self.slowest, time.monotonic() - begin)

    def publish_only(self, text: str) -> None:
        self.sent.append(text)
        post(self.server, f"/publish/{self.channel}", text)

    def come_back(self, got: list[Event]) -> list[str]:
        """Return the texts that a client has after it got these events and reconnected."""
        headers = {"Last-Event-ID": str(got[-1].id)}
        missed = self.sent[len(got) :]
        with connected(self.server, self.path(""), headers=headers) as client:
            return [event.data for event in got] + client.texts(len(missed))


def stream(server: Server, name: str) -> dict[str, Any]:
    found: dict[str, Any] = get(server, f"/stream/{name}")
    return found


def await_stream(server: Server, name: str) -> dict[str, Any]:
    """Return the state of a stream once it waits for events; its writer is decided then."""
    return until(lambda: (found := stream(server, name)).get("idle") and found, "the stream to wait") or {}


def await_end(server: Server, name: str, reason: str) -> str:
    """Check each callback once, the reason, and the release of the client. Return the error."""
    until(lambda: len(get(server, "/ends").get(name, [])) >= 3, f"the end of {name}")
    (first, error), *others = get(server, "/ends")[name]
    assert (first, others) == ("error", [["completion", f"CloseReason.{reason}"], ["gone", reason]])
    return str(error)


def closed(server: Server) -> dict[str, int]:
    found: dict[str, int] = get(server, "/stats")["closed"]
    return found


def ask(raw: socket.socket, path: str) -> None:
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


class ByteByByte:
    """A socket for ``http.client`` that reads one byte from the kernel each time."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> Any:
        return self._raw.makefile(mode, buffering=1)  # type: ignore[call-overload]


class Reading:
    """The events that a client has received, as a browser would have them."""

    def __init__(self, raw: Any) -> None:
        self._response = http.client.HTTPResponse(raw)
        self._response.begin()
        self._size = 1 if isinstance(raw, ByteByByte) else None
        self._decoder = EventDecoder()
        self.events: list[Event] = []

    def texts(self, n: int) -> list[str]:
        """Return the texts of the first ``n`` events, once they are there."""
        while len(self.events) < n:
            assert self._read(self._size), "the end"
        return [event.data for event in self.events[:n]]

    def to_the_cut(self) -> list[Event]:
        """Return all whole events up to an end that is not clean: a clean one would mean that nothing is missing."""
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            self._read_on()
        return self.events

    def to_the_end(self) -> list[Event]:
        """Return all whole events, up to an end of any kind."""
        with suppress(http.client.IncompleteRead, ConnectionResetError):
            self._read_on()
        return self.events

    def _read_on(self) -> None:
        while self._read(None):
            pass

    def _read(self, size: int | None) -> bytes:
        part = self._response.read1() if size is None else self._response.read(size)
        self.events += [event for event in self._decoder.feed(part) if event.data is not None]
        return part


def descriptors_of(server: Server) -> list[str]:
    folder = f"/proc/{get(server, '/process')['pid']}/fd"
    found = []
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"{folder}/{name}"))
    return found


# a client that is stopped


class Curl:
    """A process that reads a stream into a file."""

    def __init__(self, server: Server, path: str, folder: Path) -> None:
        self._file = folder / new_name()
        command = [program("curl", "curl"), "--silent", "--no-buffer", "--output", str(self._file), server.url + path]
        self.process = subprocess.Popen(command)

    def __enter__(self) -> Curl:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def events(self) -> list[Event]:
        """Return the events that it has received whole."""
        return [event for event in decode(self._file.read_bytes()) if event.data is not None]


def test_stopped_client_disturbs_no_other_and_misses_nothing_when_it_continues(server: Server, tmp_path: Path) -> None:
    """One continues within its bounds; another overflows, is cut, and reconnects."""
    late, soon = new_name(), new_name()
    before = settled(server)["closed"].get("overflow", 0)
    with (
        Room(server) as room,
        Curl(server, room.path(late), tmp_path) as cut,
        Curl(server, room.path(soon), tmp_path) as kept,
    ):
        await_stream(server, soon)
        connection = connection_of(server, await_stream(server, late)["descriptor"])
        room.publish("first")
        until(lambda: cut.events() and kept.events(), "it to be there")
        for curl in (cut, kept):
            curl.process.send_signal(signal.SIGSTOP)
        goes_on, most = False, 0
        while (now := stream(server, late))["open"]:
            assert len(room.sent) < 500
            most = max(most, now.get("pending", 0))
            if not goes_on and stream(server, soon)["pending"]:
                goes_on = True
                kept.process.send_signal(signal.SIGCONT)
                until(lambda: stream(server, soon)["idle"], "it to have caught up")
            room.publish(f"{len(room.sent)} " + "x" * 50_000)
        assert goes_on
        assert "max_pending_bytes=1048576" in await_end(server, late, "OVERFLOW")
        assert closed(server)["overflow"] == before + 1
        assert 10 <= most <= 21, "events of 50,000 bytes within a bound of a megabyte"
        until(lambda: connection not in descriptors_of(server), "its descriptor to be closed")
        room.publish("last")
        until(lambda: [event.data for event in kept.events()] == room.sent, "the other to have everything")
        cut.process.send_signal(signal.SIGCONT)
        assert cut.process.wait(PATIENCE) == 18, "curl says that the transfer is not complete"
        assert room.come_back(cut.events()) == room.sent


def connection_of(server: Server, descriptor: int) -> str:
    return os.readlink(f"/proc/{get(server, '/process')['pid']}/fd/{descriptor}")


def test_stopped_client_is_cut_at_the_write_timeout_and_replays_what_it_missed(
    tmp_path: Path,
) -> None:
    name = new_name()
    with (
        Server("gevent", APP, env=settings(SSE_WRITE_SECONDS=1, SSE_MAX_PENDING_BYTES=10**9)) as server,
        Room(server, 1) as room,
        Curl(server, room.path(name), tmp_path) as curl,
    ):
        await_stream(server, name)
        room.publish("first")
        until(curl.events, "it to be there")
        curl.process.send_signal(signal.SIGSTOP)
        while not stream(server, name)["pending"]:
            room.publish(f"{len(room.sent)} " + "x" * 200_000)
        await_end(server, name, "DISCONNECTED")
        assert closed(server) == {"disconnected": 1}
        room.publish("last")
        curl.process.send_signal(signal.SIGCONT)
        assert curl.process.wait(PATIENCE) == 18
        assert room.come_back(curl.events()) == room.sent


# a client that reads as little as it can


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


def test_slow_client_with_tiny_buffers_and_one_byte_reads_gets_every_event(server: Server) -> None:
    name = new_name()
    with Room(server) as room, socket.socket() as raw:
        raw.settimeout(PATIENCE)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)
        raw.connect(("127.0.0.1", server.port))
        ask(raw, room.path(name))
        await_stream(server, name)
        most = 0
        for number in range(160):
            room.publish(f"{number} {AWKWARD[number % len(AWKWARD)]}")
            if not number % 10:
                most = max(most, stream(server, name)["pending"])
        assert most, "it is behind"
        assert Reading(ByteByByte(raw)).texts(len(room.sent)) == room.sent
        assert stream(server, name)["open"]


@pytest.fixture(scope="module", params=["gevent", "gevent_off"])
def far(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Wire]]:
    """A server at the far end of a wire, which takes clients for gone after a second or two."""
    env = settings(SSE_HEARTBEAT=0.4, SSE_WRITE_SECONDS=1, SSE_MAX_PENDING_BYTES=10**9)
    with Wire() as wire, FarServer(request.param, APP, wire.listener, env) as server:
        yield server, wire
        server.kill()


@pytest.mark.parametrize("far", ["gevent"], indirect=True)
def test_write_timeout_spares_a_client_with_a_window_of_one_byte(far: tuple[Server, Wire]) -> None:
    """A byte takes a fifth of a second: one event takes several times ``SSE_WRITE_SECONDS``."""
    server, wire = far
    name = new_name()
    with Room(server) as room, wire.connect() as raw:
        ask(raw, room.path(name))
        await_stream(server, name)
        reading = Reading(ByteByByte(raw))
        room.publish("wide")
        assert reading.texts(1) == ["wide"]
        port = raw.getsockname()[1]
        wire.windows[port] = 1
        room.publish("narrow")
        until(lambda: wire.segments.get(port, []).count(1) >= 12, "a dozen bytes, one by one")
        assert stream(server, name)["open"]
        wire.windows[port] = 0xFFFF
        room.publish("wide again")
        assert reading.texts(3) == room.sent


# a client that vanishes


def test_vanished_client_is_disconnected_soon_and_replays_what_it_missed(
    far: tuple[Server, Wire],
) -> None:
    """Half-open: neither FIN nor RST reaches the server, nor an answer. One client is idle, one is being written to."""
    server, wire = far
    idle, busy, healthy = new_name(), new_name(), new_name()
    before = settled(server)["closed"].get("disconnected", 0)
    with Room(server) as room, Room(server) as silence, ExitStack() as stack:
        gone, quiet, still_there = (stack.enter_context(wire.connect()) for _ in range(3))
        for raw, name, where in ((gone, busy, room), (quiet, idle, silence), (still_there, healthy, room)):
            ask(raw, where.path(name))
        connections = [connection_of(server, await_stream(server, name)["descriptor"]) for name in (busy, idle)]
        await_stream(server, healthy)
        vanished = [busy, idle]
        room.publish("first")
        reading = Reading(still_there)
        for raw in (gone, quiet):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # as browsers do
            for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 100)):
                raw.setsockopt(socket.IPPROTO_TCP, option, value)
        wire.dead |= {raw.getsockname()[1] for raw in (gone, quiet)}
        while stream(server, busy)["open"]:
            room.publish(f"{len(room.sent)} " + "x" * 100_000)
            assert reading.texts(len(room.sent)) == room.sent, "it is on the same network, and connected"
            time.sleep(0.02)
        for name in vanished:
            await_end(server, name, "DISCONNECTED")
        assert min(wire.lost[raw.getsockname()[1]] for raw in (gone, quiet)) > 0
        until(lambda: not set(connections) & set(descriptors_of(server)), "their descriptors to be closed")
        assert closed(server)["disconnected"] == before + len(vanished)
        assert "Traceback" not in server.log
        assert stream(server, healthy)["open"]
        wire.dead.clear()
        assert Reading(quiet).to_the_end() == []
        assert room.come_back(Reading(gone).to_the_cut()) == room.sent


def test_short_network_outage_neither_ends_a_stream_nor_loses_an_event(far: tuple[Server, Wire]) -> None:
    server, wire = far
    name = new_name()
    with Room(server) as room, wire.connect() as raw:
        ask(raw, room.path(name))
        await_stream(server, name)
        wire.dead.add(raw.getsockname()[1])
        for number in range(5):
            room.publish(str(number))
        until(lambda: wire.lost[raw.getsockname()[1]] >= 2, "something to be lost")
        wire.dead.clear()
        assert Reading(ByteByByte(raw)).texts(len(room.sent)) == room.sent
        assert stream(server, name)["open"]


# resets


def test_reset_at_any_moment_of_a_connect_leaves_nothing_behind(server: Server) -> None:
    """Before they are accepted, amid the request, before the answer, amid its first bytes."""
    seed = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 10**6)
    print(f"SEED={seed}")  # noqa: T201
    with Room(server, 1) as room:  # for objects that are made once, and kept
        room.publish("first")
    quiet = settled(server)
    begun = len(server.log)
    with Room(server) as room:
        storms = [threading.Thread(target=storm, args=(random.Random(f"{seed}/{n}"), room)) for n in range(6)]
        for each in storms:
            each.start()
        while any(each.is_alive() for each in storms):
            room.publish(str(len(room.sent)))
        reset_before_they_are_accepted(room)
        room.publish("last")
    now = settled(server)
    assert now["opened"] == sum(now["closed"].values())
    assert set(now["closed"]) <= {"disconnected", "overflow"}, "the latter are of other tests"
    assert now["opened"] - quiet["opened"] > 100, "many got as far as a stream"
    assert (now["objects"], now["watched"]) == (quiet["objects"], 0)
    assert now["descriptors"] <= quiet["descriptors"] + 2
    assert "Traceback" not in server.log[begun:]
    for name, calls in get(server, "/ends").items():
        if name.startswith("reset"):
            kinds = [call[0] for call in calls]
            assert sorted(kinds) == ["completion", "error", "gone"], "each once"
            assert kinds.index("error") < kinds.index("completion"), "the signal comes at any time after the end"


def storm(dice: random.Random, room: Room) -> None:
    for _ in range(70):
        with socket.create_connection(("127.0.0.1", room.server.port), timeout=PATIENCE) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            request = f"GET {room.path('reset' + new_name())} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            raw.sendall(dice.choice([b"", request[: dice.randrange(len(request))], request, request, request]))
            time.sleep(dice.choice([0, 0, dice.uniform(0, 0.002), dice.uniform(0, 0.02)]))


def reset_before_they_are_accepted(room: Room) -> None:
    """Reset while the server is stopped, which then finds them in its queue, with a request, and gone."""
    worker = get(room.server, "/process")["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", room.server.port), timeout=PATIENCE) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                ask(raw, room.path("reset" + new_name()))
    finally:
        os.kill(worker, signal.SIGCONT)


def settled(server: Server) -> dict[str, Any]:
    """Return the figures of a server once all its streams are over."""

    def found() -> dict[str, Any] | None:
        process, stats = get(server, "/process"), get(server, "/stats")
        objects = {
            kind: process["objects"][kind] for kind in ("SseEmitter", "Stream", "ResponseBody", "SocketWriter", "Watch")
        }
        is_over = not any(objects.values()) and stats["clients"] == process["watched"] == 0 and not stats["channels"]
        return {**process, **stats, "objects": objects} if is_over else None

    return until(found, "all streams to be over") or {}


# a kernel that refuses to write


@pytest.fixture(scope="module", params=["gevent", "gevent_off"])
def judged(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Syscalls]]:
    """A worker where the test decides the result of each ``send()``."""
    with Syscalls() as syscalls, Server(request.param, APP, env={**settings(), "SYSCALLS": syscalls.path}) as server:
        syscalls.await_worker()
        yield server, syscalls
        server.kill()
        syscalls.judge = lambda _: 0


class Victim:
    """One client's connection in its worker; others get its descriptor number once it is closed."""

    def __init__(self, server: Server, name: str) -> None:
        self.descriptor = await_stream(server, name)["descriptor"]
        self._link = f"/proc/{get(server, '/process')['pid']}/fd/{self.descriptor}"
        self.connection = os.readlink(self._link)

    def fail(self, code: int) -> Callable[[Send], int]:
        def judge(send: Send) -> int:
            return code if send.descriptor == self.descriptor and os.readlink(self._link) == self.connection else 0

        return judge


def test_reset_amid_the_first_write_leaves_nothing_behind(judged: tuple[Server, Syscalls]) -> None:
    """The worker is in its very first ``send()`` to the client, which is gone when that returns."""
    server, syscalls = judged
    settled(server)
    opened, begun = get(server, "/stats")["opened"], len(server.log)
    for _ in range(20):
        name, held, released = new_name(), threading.Event(), threading.Event()

        def hold(_send: Send, held: threading.Event = held, released: threading.Event = released) -> int:
            held.set()
            assert released.wait(PATIENCE)
            return 0

        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            syscalls.judge = hold
            ask(raw, f"/events/{new_name()}?name={name}")
            assert held.wait(PATIENCE)
        syscalls.judge = lambda _: 0
        released.set()
        await_end(server, name, "DISCONNECTED")
    assert settled(server)["opened"] == opened + 20
    assert "Traceback" not in server.log[begun:]


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM])
def test_write_error_for_want_of_memory_ends_that_stream_alone_and_is_replayed(
    code: int, judged: tuple[Server, Syscalls]
) -> None:
    server, syscalls = judged
    name = new_name()
    before = settled(server)["closed"].get("disconnected", 0)
    with Room(server) as room, socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
        ask(raw, room.path(name))
        victim = Victim(server, name)
        failed = syscalls.failed[victim.descriptor]
        reading = Reading(raw)
        room.publish("first")
        assert reading.texts(1) == ["first"]
        syscalls.judge = victim.fail(code)
        room.publish("second")
        until(lambda: syscalls.failed[victim.descriptor] > failed, "its send to fail")
        syscalls.judge = lambda _: 0
        assert os.strerror(code) in await_end(server, name, "DISCONNECTED") or server.kind != "gevent"
        room.publish("third")
        assert closed(server)["disconnected"] == before + 1
        until(lambda: victim.connection not in descriptors_of(server), "its descriptor to be closed")
        got = reading.to_the_cut()
        assert [event.data for event in got] == ["first"]
        assert room.come_back(got) == room.sent


def test_write_error_amid_an_event_cuts_the_client_before_any_later_event(
    judged: tuple[Server, Syscalls],
) -> None:
    server, syscalls = judged
    name = new_name()
    with Room(server) as room, socket.socket() as raw:
        raw.settimeout(PATIENCE)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)
        raw.connect(("127.0.0.1", server.port))
        ask(raw, room.path(name))
        victim = Victim(server, name)
        room.publish("first")
        while not stream(server, name)["pending"]:
            room.publish(f"{len(room.sent)} " + "x" * 20_000)
        syscalls.judge = victim.fail(errno.ENOBUFS)
        got = Reading(raw).to_the_cut()
        await_end(server, name, "DISCONNECTED")
        syscalls.judge = lambda _: 0
        assert [event.data for event in got] == room.sent[: len(got)]
        assert len(got) < len(room.sent)
        assert room.come_back(got) == room.sent


def test_write_refused_though_there_is_room_is_retried_now_and_then(
    judged: tuple[Server, Syscalls],
) -> None:
    """EAGAIN with nothing in the socket's buffer, as where the memory for all of TCP is used up."""
    server, syscalls = judged
    name = new_name()
    with Room(server) as room, socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
        ask(raw, room.path(name))
        victim = Victim(server, name)
        room.publish("first")
        before = syscalls.failed[victim.descriptor]
        syscalls.judge = victim.fail(errno.EAGAIN)
        begin = time.monotonic()
        while time.monotonic() < begin + 1:
            room.publish(str(len(room.sent)))
        seconds = time.monotonic() - begin
        asked = syscalls.failed[victim.descriptor] - before
        syscalls.judge = lambda _: 0
        assert Reading(ByteByByte(raw)).texts(len(room.sent)) == room.sent
        assert stream(server, name)["open"]
        assert asked <= 3 + seconds / RETRY_SECONDS or server.kind != "gevent", "else it is gevent that asks"
