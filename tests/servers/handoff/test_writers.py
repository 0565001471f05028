"""Who writes a stream, and why: as the log, ``stats()``, and ``flask sse check`` say it."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest

from tests.apps.cli import app as checking_app
from tests.servers.kinds import HANDING_OFF, on
from tests.support.brokers.shared_broker import SharedBroker, shared_broker
from tests.support.cli import cli_runner
from tests.support.client import connected, new_app, new_name, post, stats
from tests.support.servers import Server
from tests.support.waiting import until

#: The name of each server, and its threads for requests.
NAMES: dict[str, tuple[str, int | None]] = {
    "gevent": ("gunicorn, gevent", None),
    "gevent_off": ("gunicorn, gevent", None),
    "gevent_pywsgi": ("gunicorn, gevent_pywsgi", None),
    "gthread": ("gunicorn, gthread", 200),
    "gthread_off": ("gunicorn, gthread", 200),
    "sync": ("gunicorn, sync", None),
    "werkzeug": ("Werkzeug", None),
    "waitress": ("waitress", 8),
    "uwsgi": ("uWSGI", 8),
    "a2wsgi": ("a2wsgi", 8),
    "mod_wsgi": ("mod_wsgi", 8),
}

OFF = "SSE_HANDOFF is off"
AUTO = "Set SSE_HANDOFF to auto, its default."
OTHER = "the server is not gunicorn with a worker of its own"


def says_who_writes(server: Server) -> None:
    name, threads = NAMES[server.kind]
    is_handed_off = server.kind in HANDING_OFF
    by = "handoff" if is_handed_off else "greenlet" if server.kind == "gevent_off" else "thread"
    why = "" if is_handed_off else OFF if server.kind.endswith("_off") else OTHER
    app = new_app(server)
    assert stats(server, app)["server"] == {"name": None, "threads": None, "declined": None}
    path, asked = f"{app}/silent/{new_name()}?list={app[1:]}", {"Sse-Check": "0123456789; comments"}
    with connected(server, path, headers=asked) as client:
        body = b""
        while not (found := re.search(rb"(?m)^: written (.*)\n", body)):
            body += client.read_some()
        post(server, f"{app}/lists{app}/complete")  # not every server tells that a client has left
        body += client.rest()
    assert found[1].decode() == f"by={by}; server={name}; threads={threads or ''}; why={why}"
    assert body.count(b": written") == 1
    assert stats(server, app)["server"] == {"name": name, "threads": threads, "declined": why or None}
    shown = name + (f", {threads} threads" if threads else "")
    line = f"streams are handed off: they hold neither a thread nor a greenlet of the server ({shown})"
    if not is_handed_off:
        line = f"streams are written by the server ({shown}), on a {by} for each: {why}"
    until(lambda: line in server.log, "the log")
    with connected(server, f"{app}/completed/{new_name()}") as client:
        client.rest()
    assert server.log.count(line) == 1, "once for all streams of the process"


def test_server_says_who_writes_a_stream_and_why(server: Server) -> None:
    says_who_writes(server)


def test_server_says_who_writes_a_stream_and_why_on_other_servers(other: Server) -> None:
    says_who_writes(other)


def test_server_says_who_writes_a_stream_of_an_async_view(other: Server) -> None:
    """The coroutine is on another thread than the server's, on which nothing shows the server."""
    app, (name, threads) = new_app(other), NAMES[other.kind]
    with connected(other, f"{app}/awaited-response/{new_name()}?list={app[1:]}") as client:
        assert client.response.headers["X-Foo"] == "bar"
        until(lambda: stats(other, app)["declined"] == {OTHER: 1}, "the writer")
        figures = stats(other, app)
        assert figures["server"] == {"name": name, "threads": threads, "declined": OTHER}
        assert figures["warnings"] == [], "a bridge says of itself that it runs several processes"
        post(other, f"{app}/lists{app}/complete")
        assert client.rest() != b""


def checked(server: Server, path: str, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command in this process; return its exit code, and the findings by name."""
    done = cli_runner(checking_app).invoke(args=["sse", "check", "--json", *options, server.url + path])
    return done.exit_code, {each["name"]: each for each in json.loads(done.stdout)["findings"]}


@on("sync", "gthread_off", "gevent_off", "werkzeug")
def test_check_reports_who_writes_a_stream_and_what_to_change(server: Server) -> None:
    app = new_app(server, channels=True, SSE_HEARTBEAT=0.5)
    code, findings = checked(server, f"{app}/events?channel=news", "--no-replay")
    level, seen, fix = {
        "sync": (
            "ok",
            "It is handed off: it holds neither a thread nor a greenlet of the server (gunicorn, sync).",
            "",
        ),
        "gthread_off": (
            "note",
            f"A thread of the server (gunicorn, gthread, 200 threads) writes it, as long as it is open: {OFF}.",
            f"200 streams take all threads, and other requests then wait. {AUTO}",
        ),
        "gevent_off": (
            "note",
            f"A greenlet of the server (gunicorn, gevent) writes it, as long as it is open: {OFF}.",
            f"gunicorn's --worker-connections limits their number, 1000 by default. {AUTO}",
        ),
        "werkzeug": (
            "note",
            f"A thread of the server (Werkzeug) writes it, as long as it is open: {OTHER}.",
            "gunicorn's workers sync, gthread and gevent hand them off.",
        ),
    }[server.kind]
    assert findings["writer"] == {"name": "writer", "level": level, "seen": seen, "fix": fix}
    assert code == 0, "a note is no fault"


@on("sync")
def test_check_of_a_stream_that_sync_refuses_says_what_to_look_for(server: Server) -> None:
    app = new_app(server, channels=True, SSE_HANDOFF="off")
    code, findings = checked(server, f"{app}/events?channel=news", "--no-replay")
    assert (code, findings["status"]["level"]) == (1, "fault")
    assert "gunicorn's sync worker with SSE_HANDOFF off" in findings["status"]["fix"]
    assert stats(server, app)["server"] == {"name": "gunicorn, sync", "threads": None, "declined": OFF}


@pytest.mark.parametrize("broker", get_args(SharedBroker))
def test_check_of_a_channel_finds_its_replay_over_each_shared_broker(broker: SharedBroker) -> None:
    with shared_broker(broker) as (_, url):
        env = {"CONFIG": json.dumps({"SSE_BROKER_URL": url, "SSE_HEARTBEAT": 0.5})}
        with Server("gthread", "tests.apps.channels:app", env=env) as server:
            post(server, "/publish/news", "x")
            code, findings = checked(server, "/events?channel=news")
    assert (code, findings["replay"]["level"]) == (0, "ok")
