"""``flask sse status``: the processes that serve an app, through a real Redis, and their table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_sse_emitters import SSE
from flask_sse_emitters.server.app_state import State
from flask_sse_emitters.tools.process_table import describe, summarize
from tests.support.cli import cli_runner
from tests.support.client import Client, connected, get, post
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def config(redis: RedisServer, **more: object) -> dict[str, str]:
    return {"CONFIG": json.dumps({"SSE_BROKER_URL": redis.url, "SSE_PUBLISH_SECONDS": PATIENCE, **more})}


def status(redis: RedisServer, *arguments: str) -> str:
    command = [sys.executable, "-m", "flask", "--app", "tests.apps.cli", "sse", "status", *arguments]
    env = {**os.environ, **config(redis), "PYTHONWARNINGS": "error"}
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


@pytest.fixture
def status_now(redis: RedisServer) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run the command with ``--json`` in this process."""
    app = Flask(__name__)
    app.config.update(SSE_BROKER_URL=redis.url, SSE_PUBLISH_SECONDS=PATIENCE)
    sse = SSE(app)
    runner = cli_runner(app)

    def ask() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(runner.invoke(args=["sse", "status", "--json"]).stdout)
        return found

    yield ask
    sse._channels().broker.close()


def invoked(**config: object) -> Result:
    app = Flask(__name__)
    app.config.update(config)
    SSE(app)
    return cli_runner(app).invoke(args=["sse", "status"])


def test_status_shows_two_processes_with_clients_and_channels(
    redis: RedisServer, status_now: Callable[[], dict[str, Any]]
) -> None:
    with Server("gevent", "tests.apps.channels:app", env=config(redis)) as one, ExitStack() as stack:
        two = stack.enter_context(Server("gthread", "tests.apps.channels:app", env=config(redis)))
        paths = [(one, "orders"), (one, "orders"), (two, "orders"), (two, "news")]
        clients: list[Client] = [
            stack.enter_context(connected(server, f"/events?channel={channel}")) for server, channel in paths
        ]
        until(lambda: status_now()["channels"] == {"orders": 3, "news": 1}, "reports of both")
        post(one, "/publish/orders", "x")
        for client in clients[:3]:
            assert client.texts(1) == ["x"]
        until(lambda: status_now()["deliveries"] == 3, "deliveries of both")
        found = status_now()
        pids = {get(server, "/stats")["pid"] for server in (one, two)}
        assert {process["pid"] for process in found["processes"]} == pids
        assert (found["clients"], found["pending"], found["dropped"]) == (4, 0, 0)
        shown = status(redis)
        assert shown.startswith("2 processes, 4 clients, 2 channels\n\n")
        for pid in pids:
            assert f" {pid} " in shown
        assert "\norders         3\nnews           1\n" in shown


def test_status_without_serving_process_reports_none(redis: RedisServer) -> None:
    result = invoked(SSE_BROKER_URL=redis.url, SSE_BROKER_PREFIX="unused", SSE_PUBLISH_SECONDS=PATIENCE)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "No process has had a stream of a channel in the last seconds.\n"


def test_status_warns_of_read_only_broker(redis: RedisServer) -> None:
    """Its processes cannot report this through the broker."""
    redis.run("CONFIG SET maxmemory 1")
    try:
        for arguments in ([], ["--json"]):
            output = status(redis, *arguments)
            assert "nothing can be published now" in output
            assert "Redis is full: raise its maxmemory" in output
    finally:
        redis.run("CONFIG SET maxmemory 0")
    assert "warning" not in status(redis)


def test_status_with_memory_broker_names_setting_to_change() -> None:
    result = invoked()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: SSE_BROKER_URL is memory://" in result.stderr


def test_status_without_redis_fails_with_advice() -> None:
    result = invoked(SSE_BROKER_URL="redis://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: Redis did not " in result.stderr
    assert "is redis://127.0.0.1:1 right (SSE_BROKER_URL), and does it run?" in result.stderr


# The table.

NOW = 1_800_000_000.0

PROCESS: dict[str, Any] = {
    "host": "web-1",
    "pid": 7,
    "since": NOW - 3 * 3600 - 59,
    "clients": 1500,
    "deliveries": 1_234_567,
    "pending": 12,
    "dropped": 0,
    "channels": {"orders": 500, "news": 1000},
    "warnings": [],
    "broker": {"scheme": "redis", "state": "ok"},
    "draining": False,
    "age": 0.44,
}


def test_table_lists_processes_and_channels_by_clients() -> None:
    second = {**PROCESS, "host": "web-10", "pid": 12345, "since": NOW - 61, "clients": 1, "channels": {"orders": 1}}
    assert describe([second, PROCESS], NOW) == "\n".join(
        [
            "2 processes, 1,501 clients, 2 channels",
            "",
            "host      pid     up  clients  deliveries  pending  dropped       seen",
            "web-1       7    3 h    1,500   1,234,567       12        0  0.4 s ago",
            "web-10  12345  1 min        1   1,234,567       12        0  0.4 s ago",
            "",
            "channel  clients",
            "news       1,000",
            "orders       501",
        ]
    )


def test_table_shows_twenty_of_many_channels() -> None:
    shown = describe([{**PROCESS, "channels": {f"c{n:02}": n for n in range(1, 31)}}], NOW)
    assert "c30" in shown
    assert "c11" in shown
    assert "c10" not in shown
    assert shown.endswith("\nand 10 more")


def test_table_shows_drain_and_warnings() -> None:
    degraded = {
        **PROCESS,
        "draining": True,
        "warnings": ["too few files"],
        "broker": {"scheme": "redis", "state": "degraded", "error": "timed out"},
    }
    shown = describe([degraded, {**degraded, "pid": 8}], NOW)
    assert shown.count("  draining\n") == 2
    assert "warning, of 2 processes: too few files" in shown
    assert "warning, of 2 processes: the broker is degraded: timed out" in shown
    assert summarize([degraded])["warnings"] == ["too few files", "the broker is degraded: timed out"]


def test_table_shows_process_with_missing_figures() -> None:
    assert "\n?       ?  0 s        0 " in describe([{"channels": {}}], NOW)


def test_table_escapes_control_characters() -> None:
    hostile = "\x1b[2J\n\x9b1m\u202e"
    figures = {**PROCESS, "host": hostile, "channels": {hostile: 1}, "warnings": [hostile]}
    shown = describe([{**figures, "broker": {"state": "degraded", "error": hostile}}], NOW)
    assert shown.count(r"\x1b[2J\n\x9b1m\u202e") == 4
    assert shown.replace("\n", "").isprintable()


def test_table_escapes_lone_surrogates() -> None:
    """JSON may hold lone surrogates, which UTF-8 cannot encode."""
    shown = describe([{**PROCESS, "host": "\ud800", "channels": {"\udfff": 1}, "warnings": ["\ud800"]}], NOW)
    assert shown.isascii()
    assert shown.count(r"\ud800") == 2


def test_malformed_figures_of_a_process_hide_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*PROCESS, "gaps", "refused"]
    wrong = [{**dict.fromkeys(names, value), "id": "b"} for value in (None, "many", -1, float("nan"), [1], {"a": "b"})]
    wrong[0]["broker"] = {"state": "degraded", "error": "timed out", "troubles": ["orders cannot be read", None]}
    monkeypatch.setattr(State, "processes", lambda _: [{**PROCESS, "id": "a"}, *wrong])
    result = invoked(SSE_BROKER_URL="redis://127.0.0.1:1")
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith("7 processes, 1,500 clients, 2 channels\n")
    assert "\nweb-1    7 " in result.stdout
    assert "\nwarning, of 1 process: the broker is degraded: timed out\n" in result.stdout
    assert "\nwarning, of 1 process: orders cannot be read\n" in result.stdout
