"""Shutdown and reload on real servers: drain, the end of each stream, and reconnects."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psutil
import pytest

from tests.support.client import Client, connected, get, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

KINDS = ["gevent", "gevent_off", "gthread", "gevent_pywsgi"]

#: Long enough that gunicorn never ends a test.
GRACEFUL = ["--graceful-timeout", "60"]

#: The end of a stream on a worker that stops: a ``retry:`` of its own, and nothing after it.
CLOSING = re.compile(rb"retry: (\d+)\n\n\Z")


@contextmanager
def serving(kind: str, arguments: Sequence[str] = (), **config: Any) -> Iterator[Server]:
    env = {"CONFIG": json.dumps({"SSE_RETRY": 1000, **config})}
    with Server(kind, "tests.apps.channels:app", arguments=[*GRACEFUL, *arguments], env=env) as server:
        yield server


def await_exit(server: Server) -> None:
    until(lambda: server.has_exited, "the server to exit")
    assert "SIGKILL" not in server.log
    assert "graceful timeout" not in server.log


def closing_of(client: Client) -> tuple[bytes, int]:
    """Return what the client still gets up to a clean end, and its last ``retry:`` apart."""
    rest = client.rest()
    match = CLOSING.search(rest)
    assert match is not None, rest
    return rest[: match.start()], int(match[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_signal_ends_every_stream_cleanly_and_server_exits(kind: str, number: signal.Signals) -> None:
    with serving(kind) as server, ExitStack() as stack:
        channels = [stack.enter_context(connected(server, "/events?channel=a")) for _ in range(8)]
        listed = stack.enter_context(connected(server, "/connect"))
        until(lambda: get(server, "/stats")["clients"] == 9, "all clients")
        post(server, "/publish/a", "last")
        post(server, "/send", "last")
        await_no_other_connection(server, 9)
        server.signal(number)
        ends = [closing_of(client) for client in [*channels, listed]]
        assert all(b"data: last\n\n" in rest for rest, _ in ends)
        assert all(500 <= retry <= 2000 for _, retry in ends)
        assert len({retry for _, retry in ends}) > 3, "each client has its own retry"
        await_exit(server)
        assert server.log.count("completion after CloseReason.SHUTDOWN") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_reload_ends_streams_of_old_worker_and_clients_reconnect_to_new(kind: str) -> None:
    with serving(kind) as server:
        with connected(server, "/events?channel=a") as client:
            old = get(server, "/stats")["pid"]
            first = post(server, "/publish/a", "old")["id"]
            server.signal(signal.SIGHUP)
            rest, _ = closing_of(client)
            assert b"id: %b\n" % first.encode() in rest
            until(lambda: not psutil.pid_exists(old), "the old worker's end")
        with connected(server, "/events?channel=a", headers={"Last-Event-ID": first}) as client:
            [gap] = client.events(1)
            assert (gap.event, json.loads(gap.data)["requested"]) == ("gap", first)
            post(server, "/publish/a", "new")
            assert client.texts(1) == ["new"]
        assert get(server, "/stats")["pid"] != old


@pytest.mark.parametrize("kind", ["gevent", "gevent_off", "gthread"])  # the others count no requests
def test_worker_at_max_requests_ends_its_streams_and_restarts(kind: str) -> None:
    with serving(kind, ["--max-requests", "6"]) as server, connected(server, "/events?channel=a") as client:
        old = get(server, "/stats")["pid"]
        until(lambda: post(server, "/publish/a", "x") and get(server, "/stats")["pid"] != old, "another worker")
        rest, _ = closing_of(client)
        assert rest.count(b"data: x\n") >= 1
        until(lambda: not psutil.pid_exists(old), "the old worker's end")


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_gunicorn_hooks_drain_streams_without_signal_handler(kind: str) -> None:
    """The app has replaced the worker's SIGTERM handler, through which the worker is found without hooks."""
    hooks = ["--config", "tests/support/gunicorn_hooks.py"]
    with serving(kind, hooks) as server, connected(server, "/events?channel=a") as client:
        until(lambda: get(server, "/stats")["clients"] == 1, "the client")
        server.signal(signal.SIGTERM)
        closing_of(client)
        await_exit(server)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_preloaded_app_drains_streams_at_shutdown(kind: str) -> None:
    with serving(kind, ["--preload"]) as server, connected(server, "/events?channel=a") as client:
        until(lambda: get(server, "/stats")["clients"] == 1, "the client")
        server.signal(signal.SIGTERM)
        closing_of(client)
        await_exit(server)


@pytest.mark.parametrize("kind", KINDS)
def test_connect_during_drain_ends_at_once_with_retry(kind: str) -> None:
    with serving(kind, SSE_DRAIN_SECONDS=2) as server, stuck_client(server):
        fill(server, 1)
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as stop:
            stop.request("POST", "/shutdown")
            until(lambda: get(server, "/stats")["draining"], "the drain to begin")
            for path in ["/events?channel=a", "/connect"] * 5:
                with connected(server, path) as late:
                    match = re.fullmatch(rb"retry: (\d+)\n\n(id: \S+\n\n)?", late.rest())
                    assert match is not None
                    assert 500 <= int(match[1]) <= 2000
            with stop.getresponse() as response:
                stats = json.loads(response.read())
        assert stats["closed"] == {"shutdown": 1}
        assert get(server, "/stats")["clients"] == 0


def test_drain_ends_idle_clients_at_once_and_cuts_stuck_ones_at_timeout() -> None:
    """2,000 idle clients and 50 that read nothing."""
    with serving("gevent", ["--worker-connections", "5000"], SSE_DRAIN_SECONDS=3) as server, ExitStack() as stack:
        stuck = [stack.enter_context(stuck_client(server)) for _ in range(50)]
        idle = [stack.enter_context(closing(raw_client(server, "/events?channel=a"))) for _ in range(2000)]
        until(lambda: get(server, "/stats")["clients"] == 2050, "all clients")
        fill(server, 50)
        worker = psutil.Process(get(server, "/stats")["pid"])
        server.signal(signal.SIGTERM)
        retries = []
        for client in idle:
            rest = read_to_the_end(client)
            match = re.search(rb"retry: (\d+)\n\n\r\n0\r\n\r\n\Z", rest)
            assert match is not None, rest
            retries.append(int(match[1]))
        assert len(set(retries)) > 500
        assert worker.is_running(), "stuck clients have until the timeout"
        await_exit(server)
        for client in stuck:
            assert not read_to_the_end(client).endswith(b"0\r\n\r\n"), "cut off, without the last chunk"


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_call_returns_once_all_streams_have_ended(kind: str) -> None:
    with serving(kind) as server, connected(server, "/events?channel=a") as client:
        post(server, "/publish/a", "last")
        answer = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        with closing(answer):
            answer.request("POST", "/shutdown")
            rest, _ = closing_of(client)
            assert rest.endswith(b"data: last\n\n")
            client.close()
            with answer.getresponse() as response:
                stats = json.loads(response.read())
        assert (stats["clients"], stats["closed"], stats["draining"]) == (0, {"shutdown": 1}, True)


def test_replay_in_progress_is_completed_before_shutdown_ends_stream() -> None:
    """A client that catches up gets all events published before the shutdown."""
    with serving("gevent", SSE_HISTORY=100_000, SSE_DRAIN_SECONDS=20) as server:
        with connected(server, "/connect"):
            ids = [post(server, "/publish/a", f"{number} " + "x" * 10_000)["id"] for number in range(1500)]
        with closing(raw_client(server, "/events?channel=a", f"Last-Event-ID: {ids[0]}\r\n", buffer=4096)) as raw:
            until(lambda: get(server, "/stats")["clients"] == 1, "the client")
            os.kill(get(server, "/stats")["pid"], signal.SIGTERM)
            until(lambda: "streams end within" in server.log, "the drain to begin")
            rest = read_to_the_end(raw)
        found = re.findall(rb"\nid: (\S+)\n", rest)
        assert [each.decode() for each in found] == ids[1:]
        assert re.search(rb"retry: \d+\n\n\r\n0\r\n\r\n\Z", rest)


@pytest.mark.parametrize("arguments", [["--workers", "2"], ["--workers", "2", "--preload"]], ids=["plain", "preloaded"])
def test_memory_broker_with_several_workers_is_warned_of(arguments: list[str]) -> None:
    with serving("gevent", arguments) as server:
        until(lambda: server.log.count("Booting worker") == 2, "both workers")
        pids: set[int] = set()
        warnings: set[str] = set()

        def both_answered() -> bool:
            stats = get(server, "/stats")
            pids.add(stats["pid"])
            warnings.update(stats["warnings"])
            return len(pids) == 2 and bool(warnings)

        with connected(server, "/events?channel=a"):
            until(both_answered, "answers from both, and a warning")
        [warning] = warnings
        assert "SSE_BROKER_URL='memory://' reaches the clients of one process" in warning
        assert 1 <= server.log.count(warning) <= 2, "once for each worker"
    with serving("gevent") as server:
        assert get(server, "/stats")["warnings"] == []


def await_no_other_connection(server: Server, streams: int) -> None:
    """Wait until the worker has no connections but these streams.

    gunicorn's gthread worker takes the lock of its thread pool in its handler of SIGINT and SIGQUIT. If the signal
    comes while its main thread holds that lock, because a connection has sent data, it hangs until it is killed.
    """
    worker = psutil.Process(get(server, "/stats")["pid"])

    def others() -> int:
        connections = worker.net_connections("tcp")
        return sum(each.laddr.port == server.port and each.status != psutil.CONN_LISTEN for each in connections)

    until(lambda: others() == streams, "the end of all other connections")


def fill(server: Server, clients: int) -> None:
    """Send to the clients until more is pending for each than its socket can hold."""
    until(lambda: len(get(server, "/stats")["pending"]) == clients, "the clients")
    while min(get(server, "/stats")["pending"]) < 25:
        post(server, "/send", "x" * 200_000)


@contextmanager
def stuck_client(server: Server) -> Iterator[socket.socket]:
    """Connect a client with a small buffer that reads nothing."""
    with closing(raw_client(server, "/connect", buffer=4096)) as raw:
        yield raw


def raw_client(server: Server, path: str, headers: str = "", buffer: int = 0) -> socket.socket:
    raw = socket.socket()
    raw.settimeout(PATIENCE)
    if buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.connect(("127.0.0.1", server.port))
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return raw


def read_to_the_end(raw: socket.socket) -> bytes:
    """Read everything up to the last chunk or a reset."""
    pieces: list[bytes] = []
    try:
        while piece := raw.recv(1_000_000):
            pieces.append(piece)
            if piece.endswith(b"\r\n0\r\n\r\n"):
                break
    except ConnectionResetError:
        pass
    return b"".join(pieces)
