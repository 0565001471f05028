"""Servers that differ from those of the contract."""

from __future__ import annotations

import pytest

from .client import connected, ended, new_name, post, state
from .servers import Server
from .waiting import until


@pytest.mark.parametrize(
    ("kind", "env", "advice"),
    [
        ("sync", {}, "start gunicorn with --worker-class gevent (or gthread, and one of --threads for each client)"),
        ("werkzeug", {"THREADED": "no"}, "run Werkzeug's server with threaded=True"),
    ],
)
def test_a_worker_that_a_stream_would_block_refuses_and_says_what_to_set(
    kind: str, env: dict[str, str], advice: str
) -> None:
    name = new_name()
    with Server(kind, "tests.contract_app:app", env=env) as server:
        with connected(server, f"/silent/{name}") as client:
            assert client.response.status == 500
        until(lambda: advice in server.log, "the log")
        found = ended(server, name, 2)
        assert (found["reason"], advice in found["error"]) == ("ERROR", True)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_an_app_may_be_loaded_before_the_fork(kind: str) -> None:
    """Under gevent the package is then imported, and the lists are made, before anything is patched."""
    with Server(kind, "tests.contract_app:app", arguments=["--preload"]) as server:
        for _ in range(3):
            name = new_name()
            with connected(server, f"/silent/{name}?list=all&heartbeat=0.05") as client:
                post(server, "/lists/all/send", "x")
                assert client.texts(1) == ["x"]
                assert state(server, name)["open"]
            assert ended(server, name, 2)["reason"] == "DISCONNECTED"
