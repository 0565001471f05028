"""Faults of a process and its machine: forks, no descriptors, no log, changed clocks, names that are not found."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from flask_sse_emitters import Publisher
from flask_sse_emitters.brokers.redis.scripts import LOOK_UP, PUBLISH, Script
from flask_sse_emitters.brokers.redis.subscriber import clock as redis_clock
from flask_sse_emitters.runtime.scheduler import SCHEDULER
from tests.support.board import closing_board, read, texts
from tests.support.client import Client, answer, connected, get, new_name, post
from tests.support.programs import program
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.process_faults:app"

S = TypeVar("S", bound=Server)


def config(**settings: Any) -> dict[str, str]:
    return {"CONFIG": json.dumps(settings)}


@contextmanager
def killed(server: S) -> Iterator[S]:
    """Run a server, and kill it at the end: other tests cover how it stops."""
    with server:
        try:
            yield server
        finally:
            server.kill()


def serving(kind: str, **options: Any) -> AbstractContextManager[Server]:
    return killed(Server(kind, APP, **options))


def worker_of(server: Server) -> psutil.Process:
    assert server._process is not None
    [worker] = until(psutil.Process(server._process.pid).children, "the worker")
    return worker


def await_heartbeats(client: Client, count: int = 3) -> None:
    """Read until ``count`` heartbeats have come."""
    seen = 0
    while seen < count:
        got = client.read_some()
        assert got, "the stream has ended"
        seen += got.count(b":\n")


# Forks.


@pytest.mark.parametrize(("kind", "forks"), [("gevent", 25), ("gevent_off", 25), ("gthread", 5)])
def test_forks_amid_a_broadcast_disturb_none_of_a_hundred_clients(kind: str, forks: int) -> None:
    """A child has its own state, and does not go on with what its parent was doing.

    The last child lives while a client with a full socket reads: under gevent, the child has a copy of its writer.
    """
    settings = config(SSE_MAX_PENDING_BYTES=10**9)
    with ExitStack() as stack:
        server = stack.enter_context(serving(kind, env=settings))
        slow = stack.enter_context(connected(server, "/events/slow"))
        clients = [stack.enter_context(connected(server, "/connect")) for _ in range(100)]
        large = "y" * 900_000
        for _ in range(16):
            post(server, "/publish/slow", large)
        for how, count in (("os.fork", forks), ("multiprocessing", forks), ("subprocess", 1)):
            done = post(server, f"/forks?how={how}&count={count}")
            assert done["ends"] == [0] * count, how
            for client in clients:
                assert client.texts(done["sent"]) == [str(number) for number in range(done["sent"])]
        with ThreadPoolExecutor() as pool:
            forked = pool.submit(post, server, "/forks?how=os.fork&count=1&seconds=0.7&quiet")
            until(worker_of(server).children, "the child")
            assert [len(text) for text in slow.texts(16)] == [len(large)] * 16
            assert forked.result()["ends"] == [0]
        stats = get(server, "/stats")
        assert (stats["clients"], stats["closed"]) == (101, {})
        assert "completion after" not in server.log, "of a stream that a child took for its own"


def test_fork_child_closes_connections_that_the_server_writes_to() -> None:
    """Else an HTTP/1.0 client, which waits for the end of its connection, would wait for that of the child as well."""
    name = new_name()
    with killed(Server("gevent_off", "tests.apps.handoff:app")) as server:
        with connected(server, f"/silent/{name}", version=10) as client:
            child = post(server, "/fork")["pid"]
            try:
                post(server, f"/complete/{name}")
                assert b"stream open" in client.rest()
            finally:
                os.kill(child, signal.SIGKILL)


def test_fork_of_a_worker_leaves_emitters_made_before_it_behind() -> None:
    """The early emitter starts the background thread in gunicorn's own process; the worker starts another."""
    settings = {**config(SSE_HEARTBEAT=0.1), "MADE_EARLY": "1"}
    with serving("gevent", env=settings, arguments=["--preload"]) as server, connected(server, "/connect") as client:
        assert post(server, "/send", "x") == {"reached": 1}
        assert client.texts(1) == ["x"]
        await_heartbeats(client)
        assert get(server, "/stats")["clients"] == 1


# No descriptors.


@contextmanager
def no_descriptors(process: psutil.Process) -> Iterator[None]:
    """Let the process open no more descriptors: EMFILE, as if all were in use. Those that are open stay open."""
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def knocking(server: Server, path: str, last_event_id: str) -> Iterator[socket.socket]:
    """A client that has connected and sent its request, accepted or not."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {last_event_id}\r\n\r\n".encode())
        yield client


def read_until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        got = client.recv(65_536)
        assert got, received
        received += got
    return received


def test_no_descriptors_open_streams_go_on_and_new_clients_wait() -> None:
    """Meanwhile the connection to Redis is lost as well, and cannot be made again: missed events come when it can."""
    with RedisServer() as redis, closing(Publisher(redis.url)) as publisher, ExitStack() as stack:
        settings = config(SSE_BROKER_URL=redis.url, SSE_HEARTBEAT=0.2)
        server = stack.enter_context(serving("gevent", env=settings))
        clients = [stack.enter_context(connected(server, "/events/a")) for _ in range(20)]
        first = publisher.publish("a", "before")
        assert all(client.texts(1) == ["before"] for client in clients)
        worker = worker_of(server)
        with no_descriptors(worker):
            began = time.monotonic()
            newcomer = stack.enter_context(knocking(server, "/events/a", first))
            publisher.publish("a", "meanwhile")
            assert all(client.texts(1) == ["meanwhile"] for client in clients)
            redis.run("CLIENT KILL TYPE pubsub")
            publisher.publish("a", "undelivered")
            until(lambda: "degraded" in server.log, "the log to report that Redis is out of reach")
            for client in clients:
                await_heartbeats(client)
            until(lambda: server.log.count("[Errno 24]") > 6, "some attempts to accept")
            # gevent waits for a hundredth of a second, then for twice as long each time, up to one second.
            attempts, seconds = server.log.count("[Errno 24]"), time.monotonic() - began
            assert attempts < 20 + 2 * seconds, "Redis is tried once a second, too"
        assert all(client.texts(1) == ["undelivered"] for client in clients)
        received = read_until(newcomer, b"undelivered")
        assert received.index(b"meanwhile") < received.index(b"undelivered")
        assert get(server, "/stats")["clients"] == 21


def test_no_descriptors_gthread_worker_is_replaced_and_its_clients_reconnect() -> None:
    """gunicorn's gthread worker ends if it has no descriptor for a client; its threads do not, so it is killed."""
    with RedisServer() as redis, closing(Publisher(redis.url)) as publisher, ExitStack() as stack:
        settings = config(SSE_BROKER_URL=redis.url, SSE_HEARTBEAT=0.2)
        server = stack.enter_context(serving("gthread", env=settings, arguments=["--timeout", "2"]))
        client = stack.enter_context(connected(server, "/events/a"))
        first = publisher.publish("a", "before")
        assert client.texts(1) == ["before"]
        worker = worker_of(server)
        with no_descriptors(worker), knocking(server, "/events/a", first):
            until(lambda: "[Errno 24]" in server.log, "the attempt to accept")
            await_heartbeats(client)
            until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the end of the worker")
        publisher.publish("a", "meanwhile")
        with connected(server, "/events/a", headers={"Last-Event-ID": first}) as again:
            assert again.texts(1) == ["meanwhile"]


def test_no_descriptors_first_stream_fails_and_leaves_nothing_behind() -> None:
    """The background thread needs some. The client has a connection already, so none has to be accepted."""
    with serving("gevent") as server:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
            for path, status in (("/time", 200), ("/connect", 500)):
                with ExitStack() as stack:
                    if status == 500:
                        stack.enter_context(no_descriptors(worker_of(server)))
                    connection.request("GET", path)
                    with connection.getresponse() as response:
                        response.read()
                        assert response.status == status
        assert "[Errno 24] Too many open files" in server.log
        with connected(server, "/connect") as client:
            post(server, "/send", "x")
            assert client.texts(1) == ["x"]
            stats = get(server, "/stats")
            assert (stats["clients"], stats["outlets"]) == (1, {"handed_off": 1, "server": 0})


def test_no_descriptors_unwatched_stream_is_served_and_logged() -> None:
    """A heartbeat notices that its client leaves; later clients, when there are descriptors, are watched."""
    settings = {**config(SSE_HEARTBEAT=0.1), "MADE_EARLY": "1"}
    with serving("gevent", env=settings) as server:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/time")
            connection.getresponse().read()
            with no_descriptors(worker_of(server)):
                connection.request("GET", "/connect")
                response = connection.getresponse()
                assert response.status == 200
                while b":\n\n" not in response.read1():
                    pass
            response.close()
            assert get(server, "/stats")["outlets"] == {"handed_off": 0, "server": 1}
        until(lambda: get(server, "/stats")["closed"] == {"disconnected": 1}, "its end")
        assert server.log.count("noticed at their next heartbeat only: [Errno 24]") == 1
        with connected(server, "/connect"):
            until(lambda: get(server, "/stats")["outlets"] == {"handed_off": 1, "server": 0}, "the next client")
        until(lambda: get(server, "/stats")["closed"] == {"disconnected": 2}, "its end")


# No log.


class Redirected(Server):
    """A server with stdout and stderr redirected by a shell.

    :param redirection: in a shell's notation.
    """

    def __init__(self, kind: str, redirection: str, **options: Any) -> None:
        super().__init__(kind, APP, **options)
        self._command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *self._command]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A pipe in the file system, which holds a page, and its end for reading."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    yield path, end
    with suppress(OSError):
        os.close(end)


@pytest.mark.parametrize(("kind", "log"), [("gthread", "full"), ("gevent", "closed"), ("gevent", "abandoned")])
def test_log_that_cannot_be_written_stops_nothing(kind: str, log: str, pipe: tuple[str, int]) -> None:
    path, end = pipe
    redirection = {"full": ">/dev/full 2>&1", "closed": ">&- 2>&-", "abandoned": f">{path} 2>&1"}[log]
    with killed(Redirected(kind, redirection, env=config(SSE_HEARTBEAT=0.2))) as server:
        with connected(server, "/events/a") as client, connected(server, "/connect") as other:
            if log == "abandoned":
                os.close(end)
            assert post(server, "/log?lines=100") == {"called": True}
            post(server, "/publish/a", "x")
            post(server, "/send", "y")
            assert (client.texts(1), other.texts(1)) == (["x"], ["y"])
            await_heartbeats(client)
        until(lambda: get(server, "/stats")["closed"] == {"disconnected": 2}, "their ends")


def drain(end: int, over: threading.Event) -> None:
    while not over.wait(0.001):
        with suppress(BlockingIOError):
            os.read(end, 65_536)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_log_that_is_not_read_blocks_its_writer_and_loses_no_event(kind: str, pipe: tuple[str, int]) -> None:
    """Under gevent it blocks the whole worker, as all that blocks does; all goes on when the log is read."""
    path, end = pipe
    over = threading.Event()
    with (
        killed(Redirected(kind, f">{path} 2>&1", env=config(SSE_HEARTBEAT=0.2))) as server,
        ThreadPoolExecutor() as pool,
    ):
        with connected(server, "/events/a") as client, connected(server, "/connect") as other:
            blocked = pool.submit(post, server, "/log?lines=1000")
            await_blocked_writer(worker_of(server))
            published = pool.submit(lambda: [post(server, "/publish/a", number) for number in range(5)])
            if kind == "gthread":
                assert client.texts(5) == list("01234")
                post(server, "/send", "y")
                assert other.texts(1) == ["y"]
                await_heartbeats(client)
            assert not blocked.done()
            draining = pool.submit(drain, end, over)
            try:
                assert blocked.result(PATIENCE) == {"called": True}
                published.result(PATIENCE)
                if kind == "gevent":
                    assert client.texts(5) == list("01234")
                    await_heartbeats(client)
                assert get(server, "/stats")["clients"] == 2
            finally:
                over.set()
                draining.result(PATIENCE)
                os.close(end)


def test_log_that_drops_lines_does_not_block_a_gevent_worker(pipe: tuple[str, int]) -> None:
    path, _ = pipe
    settings = {**config(SSE_HEARTBEAT=0.2), "LOSE_LINES": "1"}
    with (
        killed(Redirected("gevent", f">{path} 2>&1", env=settings)) as server,
        connected(server, "/events/a") as client,
    ):
        assert post(server, "/log?lines=1000") == {"called": True}
        post(server, "/publish/a", "x")
        assert client.texts(1) == ["x"]
        await_heartbeats(client)


def await_blocked_writer(process: psutil.Process) -> None:
    """Wait until one of its threads waits in ``write``: 1 on Intel's and AMD's machines, 64 on ARM's."""

    def is_writing() -> bool:
        calls = [Path(f"/proc/{process.pid}/task/{thread.id}/syscall").read_text() for thread in process.threads()]
        return any(call.split()[0] in ("1", "64") for call in calls)

    until(is_writing, "the pipe to be full")


# Changed clocks.


class Clock:
    """The time of day of processes started with :attr:`env`; their monotonic clock is the real one.

    libfaketime stands between them and the system, and reads this file each time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        libraries = sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"))
        assert libraries, "faketime is there, and its library is not"
        self.env = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set the time of day this many seconds away from the true time."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._path)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    program("faketime", "faketime")
    return Clock(tmp_path / "offset")


HOUR, YEARS = 3600, 10 * 365 * 86_400


@pytest.mark.parametrize(("kind", "broker"), [("gevent", "memory"), ("gthread", "redis")])
def test_changed_clock_of_the_server_does_not_affect_streams(kind: str, broker: str, clock: Clock) -> None:
    """Timeouts, heartbeats, ids and history hold while the time of day is set ten years and an hour ahead and back."""
    with ExitStack() as stack:
        url = "memory://" if broker == "memory" else stack.enter_context(RedisServer()).url
        settings = {**config(SSE_HEARTBEAT=0.2, SSE_BROKER_URL=url), **clock.env}
        server = stack.enter_context(serving(kind, env=settings, arguments=["--preload"]))
        client = stack.enter_context(connected(server, "/events/a"))
        post(server, "/publish/a", "first")
        [first] = client.events(1)
        ids = [first.id]
        began, brief = get(server, "/time"), []
        for number, offset in enumerate((YEARS, -YEARS, HOUR, -HOUR)):
            brief.append(stack.enter_context(connected(server, "/brief")))
            clock.set(offset)
            now = get(server, "/time")
            ahead = now["time"] - began["time"] - (now["monotonic"] - began["monotonic"])
            assert abs(ahead - offset) < 5
            post(server, "/publish/a", f"event {number}")
            [event] = client.events(1)
            assert event.data == f"event {number}"
            ids.append(event.id)
            await_heartbeats(client, 1)
        assert all(b"stream open" in each.rest() for each in brief)
        epochs, offsets = zip(*(str(each).split("-") for each in ids), strict=True)
        assert len(set(epochs)) == 1
        assert [int(offset) for offset in offsets] == [1, 2, 3, 4, 5]
        with connected(server, "/events/a", headers={"Last-Event-ID": str(ids[0])}) as again:
            assert again.texts(4) == [f"event {number}" for number in range(4)]
        until(lambda: get(server, "/stats")["closed"] == {"timeout": 4, "disconnected": 1}, "all ends")


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_changed_clock_of_redis_loses_no_event(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set by an hour, while events are kept for five minutes: the scripts have another time from then on."""
    with RedisServer() as redis, closing_board(redis.url) as board, board.open("a") as stream:
        stream.ready()
        subscription = board.sse._channels().subscription("a")
        until(lambda: subscription.log is not None, "the channel to be known")
        for script in (PUBLISH, LOOK_UP):
            later = Script(script.text.replace("clock[1] * 1000", f"(clock[1] + {offset}) * 1000"))
            assert later.text != script.text
            monkeypatch.setattr(script, "text", later.text)
            monkeypatch.setattr(script, "digest", later.digest)
        first, *_ = board.publish("a", *range(4))
        assert texts(read(stream, 4)) == list("0123")
        with board.open("a", last=first) as again:
            assert texts(read(again, 3)) == list("123")
        assert subscription.log is not None
        kept = [frame.at - SCHEDULER.clock() for frame in subscription.log.after(0, 4)]
        assert len(kept) == 4
        assert all(-PATIENCE < age <= 0 for age in kept), "their times of publishing, by the clock of this process"


def test_late_events_without_history_are_still_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process stood still, for example: it cannot tell whether the clock of Redis was changed."""
    monkeypatch.setattr(redis_clock, "LATE_SECONDS", 0.0)
    with RedisServer() as redis, closing_board(redis.url, SSE_HISTORY=0) as board, board.open("a") as stream:
        stream.ready()
        subscription = board.sse._channels().subscription("a")
        until(lambda: subscription.log is not None, "the channel to be known")
        stream.ready()  # from here on the list delivers to it
        board.publish("a", *range(200))
        assert texts(read(stream, 200)) == [str(number) for number in range(200)]


# Names that are not found.


class NameServer:
    """A DNS server (RFC 1035) that answers every name with this machine, or not at all while it is :attr:`silent`."""

    def __init__(self) -> None:
        self.silent = False
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.1)
        dice = random.SystemRandom()  # not of the test's seed: others run beside it
        self.address = f"127.{dice.randint(1, 254)}.{dice.randint(1, 254)}.{dice.randint(2, 254)}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> NameServer:
        try:
            self._socket.bind((self.address, 53))
        except OSError as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                pytest.skip("only root may serve names")
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                question, client = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self.asked += 1
            if not self.silent:
                self._socket.sendto(self._answer(question), client)

    @staticmethod
    def _answer(question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5
        is_ipv4 = question[end - 4 : end - 2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("127.0.0.1") if is_ipv4 else b""
        counts = struct.pack(">4H", 1, is_ipv4, 0, 0)
        return question[:2] + b"\x81\x80" + counts + question[12:end] + answer


class WithNames(Server):
    """A server that looks names up with this DNS server, in a name space with another ``/etc/resolv.conf``."""

    def __init__(self, kind: str, names: NameServer, folder: Path, **options: Any) -> None:
        super().__init__(kind, APP, **options)
        configuration = folder / "resolv.conf"
        configuration.write_text(f"nameserver {names.address}\noptions timeout:1 attempts:2\n")
        inside = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" /etc/resolv.conf && exec "$@"',
            str(configuration),
        ]
        if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
            pytest.skip("mounts are not allowed here")
        self._command = [*inside, *self._command]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_name_lookup_that_hangs_blocks_publishers_alone(kind: str, tmp_path: Path) -> None:
    """They wait no longer than the lookup takes, of which there are few at once; streams go on."""
    kept = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    with kept as redis, NameServer() as names, ThreadPoolExecutor(20) as pool, ExitStack() as stack:
        settings = config(SSE_BROKER_URL=f"redis://redis.test:{redis.port}", SSE_HEARTBEAT=0.1, SSE_PUBLISH_SECONDS=0.5)
        server = stack.enter_context(killed(WithNames(kind, names, tmp_path, env=settings)))
        client = stack.enter_context(connected(server, "/events/a"))
        post(server, "/publish/a", "before")
        assert client.texts(1) == ["before"]
        names.silent = True
        asked, threads = names.asked, worker_of(server).num_threads()
        redis.kill()
        redis.start()
        until(lambda: names.asked > asked, "the first lookup that hangs")
        attempts = [pool.submit(answer, server, "POST", "/publish/a", "1", JSON) for _ in range(20)]
        await_heartbeats(client, 5)
        get(server, "/time")
        assert not all(attempt.done() for attempt in attempts), "all this while lookups hang"
        assert {attempt.result()[0] for attempt in attempts} == {500}
        more = worker_of(server).num_threads() - threads
        assert "BrokerUnavailable" in server.log
        if kind == "gevent":
            assert more <= 10, "as many threads look names up at once"
        names.silent = False
        until(lambda: get(server, "/stats")["broker"]["state"] == "ok", "Redis to be found")
        post(server, "/publish/a", "after")
        assert client.texts(1) == ["after"]


JSON = {"Content-Type": "application/json"}
