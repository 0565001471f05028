"""Workers and options of servers: single threads, preloaded apps, the limit of open files, several workers."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from flask_sse_emitters.testing import decode
from tests.support.client import Client, connected, ended, get, new_app, new_name, post, state, stats
from tests.support.servers import Server
from tests.support.waiting import until


@pytest.mark.parametrize("arguments", [["--worker-class", "sync"], ["--worker-class", "gthread", "--threads", "2"]])
def test_worker_of_few_threads_serves_many_streams_and_other_requests(arguments: list[str]) -> None:
    with Server("sync", "tests.apps.servers.contract:app", arguments=arguments) as server, ExitStack() as stack:
        name = new_name()
        streams = [stack.enter_context(connected(server, f"/silent/{name}?list=all")) for _ in range(100)]
        until(lambda: stats(server)["outlets"] == {"handed_off": 100, "server": 0}, "the hand-offs")
        for number in range(3):
            post(server, "/lists/all/send", number)
        assert [stream.texts(3) for stream in streams] == [["0", "1", "2"]] * 100
        assert stats(server)["warnings"] == []


@pytest.mark.parametrize(
    ("kind", "env", "advice"),
    [
        ("sync", {"SSE_HANDOFF": "off"}, ["SSE_HANDOFF is off", "--worker-class gthread or gevent"]),
        ("werkzeug_unthreaded", {}, ["run Werkzeug's server with threaded=True"]),
        ("uwsgi", {"THREADS": "1"}, ["start uWSGI with --threads"]),
        ("asgiref", {}, ["use a2wsgi's WSGIMiddleware"]),
    ],
    ids=["sync", "werkzeug", "uwsgi", "asgiref"],
)
def test_stream_that_would_block_its_server_is_a_500_with_advice(
    kind: str, env: dict[str, str], advice: list[str]
) -> None:
    name = new_name()
    with Server(kind, "tests.apps.servers.contract:app", env=env) as server:
        with connected(server, f"/awaited-response/{new_name()}") as client:
            assert client.response.status == 500, "also where its response is made on another thread"
        with connected(server, f"/silent/{name}") as client:
            assert client.response.status == 500
        until(lambda: all(each in server.log for each in advice), "the log")
        found = ended(server, name, 2)
        assert (found["reason"], [each in found["error"] for each in advice]) == ("ERROR", [True] * len(advice))
        assert stats(server)["clients"] == 0


@pytest.mark.parametrize(
    ("middleware", "reason"),
    [
        ("gzip", "a middleware iterates over the stream"),
        ("tracing", "a middleware iterates over the stream"),
        ("compressing", "the app has put another body around the stream"),
    ],
)
def test_sync_worker_refuses_a_stream_behind_a_middleware(middleware: str, reason: str) -> None:
    with Server("sync", "tests.apps.handoff:app") as server:
        name, app = new_name(), new_app(server, middleware=middleware)
        with connected(server, f"{app}/silent/{name}", headers={"Accept-Encoding": "gzip"}) as client:
            assert client.response.status == 500
        found = ended(server, name, 2)
        assert (found["reason"], reason in found["error"]) == ("ERROR", True)
        with connected(server, f"/numbered/{new_name()}") as client:
            assert len(client.events(3)) == 3, "the worker goes on"


def test_sync_worker_without_a_descriptor_ends_the_stream_and_goes_on() -> None:
    with Server("sync", "tests.apps.handoff:app") as server, connected(server, f"/numbered/{new_name()}"):
        post(server, "/exhaust-descriptors")
        name = new_name()
        client = Client(server, f"/numbered/{name}")
        assert len(decode(client.rest())) == 3, "what was sent, and a clean end: nothing blocks the worker"
        client.close()
        found = ended(server, name, 2)
        assert (found["reason"], "[Errno 24]" in found["error"]) == ("ERROR", True)


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_preloaded_app_serves_streams(kind: str) -> None:
    """Under gevent, the package is then imported, and the lists are made, before anything is patched."""
    with Server(kind, "tests.apps.servers.contract:app", arguments=["--preload"]) as server:
        for _ in range(3):
            name = new_name()
            with connected(server, f"/silent/{name}?list=all&heartbeat=0.05") as client:
                post(server, "/lists/all/send", "x")
                assert client.texts(1) == ["x"]
                assert state(server, name)["open"]
                until(lambda: stats(server)["outlets"]["handed_off"] == 1, "the outlet")
            assert ended(server, name, 2)["reason"] == "DISCONNECTED"


def test_memory_broker_with_several_workers_is_warned_of() -> None:
    """Their app is loaded before they are forked, so that it cannot tell by then. One worker is warned of nothing."""
    with Server("gevent", "tests.apps.channels:app", arguments=["--workers", "2", "--preload"]) as server:
        until(lambda: server.log.count("Booting worker") == 2, "both workers")
        pids: set[int] = set()
        warnings: set[str] = set()

        def both_answered() -> bool:
            found = get(server, "/stats")
            pids.add(found["pid"])
            warnings.update(found["warnings"])
            return len(pids) == 2 and bool(warnings)

        with connected(server, "/events?channel=a"):
            until(both_answered, "answers from both, and a warning")
        [warning] = warnings
        assert "SSE_BROKER_URL='memory://' reaches the clients of one process" in warning
        assert 1 <= server.log.count(warning) <= 2, "once for each worker"


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_worker_at_stream_limit_answers_other_requests(kind: str) -> None:
    """Its limit of open files is low, as in an old shell."""
    few = ["bash", "-c", 'ulimit -n 256; exec "$@"', "-"]
    with Server(kind, "tests.apps.channels:app", before=few) as server, ExitStack() as stack:
        streams = [stack.enter_context(connected(server, "/events/a")) for _ in range(230)]
        assert post(server, "/publish/a", "x")
        found = stats(server)
        assert (found["clients"], found["refused_by"]) == (192, {"RLIMIT_NOFILE": 38})
        assert all(b"retry: " in stream.rest() for stream in streams[192:])
        assert streams[0].texts(1) == ["x"]
