"""Workers and options of servers: single threads, preloaded apps, the limit of open files, and what is warned of."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.servers.kinds import on
from tests.support.client import connected, ended, get, new_app, new_name, post, state, stats
from tests.support.servers import Server
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("kind", "env", "advice"),
    [
        ("sync", {}, "start gunicorn with --worker-class gevent (or gthread, and one of --threads for each client)"),
        ("werkzeug", {"THREADED": "no"}, "run Werkzeug's server with threaded=True"),
    ],
)
def test_single_threaded_worker_refuses_stream_and_logs_advice(kind: str, env: dict[str, str], advice: str) -> None:
    name = new_name()
    with Server(kind, "tests.apps.contract:app", env=env) as server:
        with connected(server, f"/silent/{name}") as client:
            assert client.response.status == 500
        until(lambda: advice in server.log, "the log")
        found = ended(server, name, 2)
        assert (found["reason"], advice in found["error"]) == ("ERROR", True)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_preloaded_app_serves_streams(kind: str) -> None:
    """Under gevent, the package is then imported, and the lists are made, before anything is patched."""
    with Server(kind, "tests.apps.contract:app", arguments=["--preload"]) as server:
        for _ in range(3):
            name = new_name()
            with connected(server, f"/silent/{name}?list=all&heartbeat=0.05") as client:
                post(server, "/lists/all/send", "x")
                assert client.texts(1) == ["x"]
                assert state(server, name)["open"]
                until(lambda: stats(server)["outlets"]["handed_off"] == (kind == "gevent"), "the outlet")
            assert ended(server, name, 2)["reason"] == "DISCONNECTED"


@on("gevent", "gthread")
def test_gthread_with_max_clients_equal_to_threads_is_warned_of_once(server: Server) -> None:
    """The gthread worker here has 200 threads."""
    warning = "SSE_MAX_CLIENTS=200, but this gthread worker has 200 threads"
    for most in (199, 200):
        app = new_app(server, channels=True, SSE_MAX_CLIENTS=most)
        assert stats(server, app)["warnings"] == [], "no stream has begun"
        for _ in range(2):
            with connected(server, f"{app}/events/a"):
                warnings = stats(server, app)["warnings"]
        is_warned_of = server.kind == "gthread" and most == 200
        assert [warning in each for each in warnings] == [True] * is_warned_of
    assert server.log.count(warning) == (server.kind == "gthread")


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


def test_gthread_with_low_file_limit_has_one_warning() -> None:
    """The file limit allows fewer streams than there are threads, so no warning about threads is added."""
    few = ["bash", "-c", 'ulimit -n 70; exec "$@"', "-"]  # room for 6 streams
    with Server("gthread", "tests.apps.channels:app", before=few, arguments=["--threads", "8"]) as server:
        with connected(server, "/events/a"):
            warnings = stats(server)["warnings"]
    assert ["it takes 6 clients" in each for each in warnings] == [True]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
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
