"""Shutdown by a signal, reload and ``max_requests``: every stream ends in order. ``test_drain.py`` has the details."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers.stopping.closing import closing_of, fill, read_to_the_end
from tests.support.client import connected, new_name, post, slow_client, state, stats, whole_response
from tests.support.servers import Server
from tests.support.waiting import until

#: Number of clients that are idle while their server stops. 2000 is a good number for a run by hand.
IDLE = int(os.environ.get("DRAIN_CLIENTS", "300"))

#: How gunicorn is started. With the hooks, a SIGTERM handler of the app's own hides the worker from the package.
STARTS = {"plain": [], "preload": ["--preload"], "hooks": ["--config", "tests/support/web/gunicorn_hooks.py"]}


@contextmanager
def serving(kind: str, arguments: Sequence[str] = (), app: str = "channels", **config: Any) -> Iterator[Server]:
    """Run a gunicorn that itself never ends a test."""
    env = {"CONFIG": json.dumps({"SSE_RETRY": 1000, **config})}
    with Server(kind, f"tests.apps.{app}:app", arguments=["--graceful-timeout", "60", *arguments], env=env) as server:
        yield server


def await_exit(server: Server) -> None:
    until(lambda: server.has_exited, "the server to exit")
    assert "SIGKILL" not in server.log
    assert "graceful timeout" not in server.log


# gunicorn tells its workers the same at SIGINT and at SIGQUIT; each worker class has its own handlers of both.
@pytest.mark.parametrize(
    ("kind", "number", "start"),
    [
        ("gevent", signal.SIGTERM, "plain"),
        ("gevent", signal.SIGINT, "preload"),
        ("gevent", signal.SIGTERM, "hooks"),
        ("gevent_off", signal.SIGTERM, "preload"),
        ("gevent_off", signal.SIGQUIT, "plain"),
        ("gthread", signal.SIGTERM, "plain"),
        ("gthread", signal.SIGINT, "preload"),
        ("gthread", signal.SIGQUIT, "plain"),
        ("gthread_off", signal.SIGQUIT, "preload"),
        ("gthread_off", signal.SIGTERM, "hooks"),
        ("sync", signal.SIGTERM, "plain"),
        ("sync", signal.SIGINT, "plain"),
        ("sync", signal.SIGQUIT, "preload"),
        ("sync", signal.SIGTERM, "hooks"),
        ("gevent_pywsgi", signal.SIGTERM, "plain"),
        ("gevent_pywsgi", signal.SIGINT, "plain"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_shutdown_signal_ends_every_stream_cleanly_and_server_exits(
    kind: str, number: signal.Signals, start: str
) -> None:
    with serving(kind, STARTS[start]) as server, ExitStack() as stack:
        channels = [stack.enter_context(connected(server, "/events?channel=a")) for _ in range(8)]
        listed = stack.enter_context(connected(server, "/connect"))
        until(lambda: stats(server)["clients"] == 9, "all clients")
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


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_shutdown_ends_idle_clients_and_cuts_stuck_ones_in_time(kind: str) -> None:
    """Many idle clients, and 10 that read nothing."""
    with serving(kind, SSE_DRAIN_SECONDS=3) as server, ExitStack() as stack:
        stuck = [stack.enter_context(closing(slow_client(server, "/connect"))) for _ in range(10)]
        idle = [stack.enter_context(closing(slow_client(server, "/events?channel=a"))) for _ in range(IDLE)]
        until(lambda: stats(server)["clients"] == 10 + IDLE, "all clients")
        fill(server, 10)
        worker = psutil.Process(stats(server)["pid"])
        server.signal(signal.SIGTERM)
        ends = [re.search(rb"retry: (\d+)\n\n\r\n0\r\n\r\n\Z", read_to_the_end(client)) for client in idle]
        retries = {end and end[1] for end in ends}
        assert None not in retries, "a clean end for each"
        assert len(retries) > 0.5 * min(IDLE, 1000)
        assert worker.is_running(), "stuck clients have until the timeout"
        await_exit(server)
        for client in stuck:
            assert not read_to_the_end(client).endswith(b"0\r\n\r\n"), "cut off, without the last chunk"


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_shutdown_writes_an_ended_handed_off_stream_to_its_end(kind: str) -> None:
    name = new_name()
    with (
        serving(kind, app="servers.contract") as server,
        slow_client(server, f"/silent/{name}?max_pending=100000") as raw,
    ):
        until(lambda: "open" in state(server, name), "the emitter")
        sent: list[str] = []
        while len(sent) < 20 or state(server, name)["pending"] < 20:
            sent.append(f"{len(sent)} " + "x" * 10_000)
            post(server, f"/send/{name}", sent[-1])
        post(server, f"/complete/{name}")
        server.signal(signal.SIGTERM)
        until(lambda: "Worker exiting" in server.log, "the worker to stop")
        assert whole_response(raw) == sent


def test_shutdown_of_a_sync_worker_completes_a_replay_in_progress() -> None:
    """The other kinds are in ``test_drain.py``: this one's view that shuts down would hold its only thread."""
    with serving("sync", SSE_HISTORY=1000, SSE_DRAIN_SECONDS=300) as server:
        ids = [post(server, "/publish/a", f"{number} " + "x" * 50_000)["id"] for number in range(300)]
        with closing(slow_client(server, "/events?channel=a", f"Last-Event-ID: {ids[0]}\r\n")) as raw:
            until(lambda: stats(server)["clients"] == 1, "the client")
            server.signal(signal.SIGTERM)
            until(lambda: "Worker exiting" in server.log, "the worker to stop")
            rest = read_to_the_end(raw)
    assert [each.decode() for each in re.findall(rb"\nid: (\S+)\n", rest)] == ids[1:]
    assert re.search(rb"retry: \d+\n\n\r\n0\r\n\r\n\Z", rest)


# The worker stops in the same way on all kinds; gunicorn's gevent_pywsgi counts no requests.
@pytest.mark.parametrize("kind", ["gevent", "gthread", "gthread_off", "sync"])
@pytest.mark.parametrize("cause", ["SIGHUP", "max_requests"])
def test_reload_ends_streams_of_old_worker_and_clients_reconnect_to_new(kind: str, cause: str) -> None:
    arguments = ["--max-requests", "12"] if cause == "max_requests" else []
    with serving(kind, arguments, SSE_MOVE="off") as server:
        with connected(server, "/events?channel=a") as client:
            old = stats(server)["pid"]
            first = post(server, "/publish/a", "old")["id"]
            if cause == "SIGHUP":
                server.signal(signal.SIGHUP)
            else:
                until(lambda: stats(server)["pid"] != old, "another worker")
            rest, _ = closing_of(client)
            assert b"id: %b\n" % first.encode() in rest
            until(lambda: not psutil.pid_exists(old), "the old worker's end")
        with connected(server, "/events?channel=a", headers={"Last-Event-ID": first}) as client:
            [gap] = client.events(1)
            assert (gap.event, json.loads(gap.data)["requested"]) == ("gap", first)
            post(server, "/publish/a", "new")
            assert client.texts(1) == ["new"]
        assert stats(server)["pid"] != old


#: An app whose streams begin with what its code says.
CHANGING = """
from flask_sse_emitters import SseEmitter
from tests.apps.channels import app

@app.get("/code")
def code():
    emitter = SseEmitter()
    emitter.send("{}")
    return emitter
"""


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_reload_of_changed_code_ends_streams_and_new_ones_run_the_new_code(kind: str, tmp_path: Path) -> None:
    """With gunicorn's ``--reload``, which stops the worker from a thread, and not by a signal."""
    file = tmp_path / "changing.py"
    file.write_text(CHANGING.format("old code"))
    arguments = ["--reload", "--pythonpath", str(tmp_path), "--graceful-timeout", "60"]

    def is_reloading() -> bool:
        os.utime(file)  # what changes before the reloader looks for the first time goes unnoticed
        return "changing.py modified" in server.log

    with Server(kind, "changing:app", arguments=arguments, env={"CONFIG": '{"SSE_RETRY": 1000}'}) as server:
        with connected(server, "/code") as client, connected(server, "/events?channel=a") as other:
            assert client.texts(1) == ["old code"]
            until(lambda: stats(server)["outlets"] == {"handed_off": 2, "server": 0}, "the hand-offs")
            post(server, "/publish/a", "last")
            old = stats(server)["pid"]
            file.write_text(CHANGING.format("changed code"))
            until(is_reloading, "the reload")
            rest, _ = closing_of(client)
            assert rest == b""
            rest, _ = closing_of(other)
            assert b"data: last\n\n" in rest
        until(lambda: not psutil.pid_exists(old), "the old worker's end")
        with connected(server, "/code") as client:
            assert client.texts(1) == ["changed code"]
            until(lambda: stats(server)["outlets"]["handed_off"] == 1, "the hand-off")


def await_no_other_connection(server: Server, streams: int) -> None:
    """Wait until the worker has no connections but these streams.

    gunicorn's gthread worker takes the lock of its thread pool in its handler of SIGINT and SIGQUIT. If the signal
    comes while its main thread holds that lock, because a connection has sent data, it hangs until it is killed.
    """
    worker = psutil.Process(stats(server)["pid"])

    def others() -> int:
        connections = worker.net_connections("tcp")
        return sum(each.laddr.port == server.port and each.status != psutil.CONN_LISTEN for each in connections)

    until(lambda: others() == streams, "the end of all other connections")
