"""Workers and options that the contract tests do not cover."""

from __future__ import annotations

import json

import pytest

from tests.support.client import connected, ended, get, new_name, post, state
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
            assert ended(server, name, 2)["reason"] == "DISCONNECTED"


@pytest.mark.parametrize(
    ("kind", "most", "is_warned_of"),
    [("gthread", 4, True), ("gthread", 3, False), ("gevent", 4, False)],
)
def test_gthread_with_max_clients_equal_to_threads_is_warned_of(kind: str, most: int, is_warned_of: bool) -> None:
    env, arguments = {"CONFIG": json.dumps({"SSE_MAX_CLIENTS": most})}, ["--threads", "4"]
    with Server(kind, "tests.apps.channels:app", env=env, arguments=arguments) as server:
        assert get(server, "/stats")["warnings"] == [], "no stream has begun"
        for _ in range(2):
            with connected(server, "/events/a"):
                warnings = get(server, "/stats")["warnings"]
        assert ["SSE_MAX_CLIENTS=4, but this gthread worker has 4 threads" in each for each in warnings] == (
            [True] if is_warned_of else []
        )
        assert server.log.count("this gthread worker has") == is_warned_of, "once"
