"""Streams hold no database connection: with a pool of two, many are open and other requests work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.servers.kinds import each
from tests.support.client import Client, answer, connected, get, post
from tests.support.servers import Server
from tests.support.waiting import until

#: Number of concurrent streams, half of them from the blueprint and half from a view. By hand, 200 is a good number.
STREAMS = int(os.environ.get("DATABASE_STREAMS", "48"))

READERS = ["ada", "bob", "cyd", "dan"]

#: The error of an exhausted pool.
EXHAUSTED = "QueuePool limit of size 2 overflow 0 reached"


@pytest.fixture(scope="module", params=each("sqlalchemy", ["gevent", "gthread"]))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"DATABASE": f"sqlite:///{tmp_path_factory.mktemp('database') / 'readers.sqlite'}"}
    threads = ("--threads", str(STREAMS + 20)) if request.param == "gthread" else ()
    with Server(request.param, "tests.apps.servers.database:app", env=env, arguments=threads) as server:
        for name in READERS:
            post(server, f"/readers/{name}", True)
        yield server


@pytest.fixture
def site(server: Server) -> Server:
    until(lambda: state(server)["clients"] == 0, "all streams to have ended")
    assert post(server, "/reset") == READERS
    return server


@contextmanager
def streaming(site: Server) -> Iterator[list[tuple[str, str, Client]]]:
    """Open many streams, of all readers in turns; yield each with its path and its reader."""
    with ExitStack() as stack:
        clients = []
        for number in range(STREAMS):
            path, name = ["/events/news", "/own"][number % 2], READERS[number // 2 % len(READERS)]
            client = stack.enter_context(connected(site, f"{path}?reader={name}"))
            assert client.response.status == 200
            clients.append((path, name, client))
        yield clients


def state(site: Server) -> dict[str, Any]:
    found: dict[str, Any] = get(site, "/state")
    return found


def request_readers(site: Server, times: int = 60) -> None:
    """Make ordinary requests that need the database, several at once."""
    with ThreadPoolExecutor(6) as threads:
        for found in threads.map(lambda _: get(site, "/readers"), range(times)):
            assert found == READERS


def check_idle(site: Server, begun: int) -> None:
    """Check that no connection is held, and that no request failed to get one since the log had this length."""
    until(lambda: state(site)["checked_out"] == 0, "all connections to be back")
    assert EXHAUSTED not in site.log[begun:]
    assert "Traceback" not in site.log[begun:]


def test_pool_of_two_serves_many_streams_with_database_rules(site: Server) -> None:
    begun = len(site.log)
    with ThreadPoolExecutor(1) as thread:
        with streaming(site) as clients:
            until(lambda: state(site)["handed_off"] == STREAMS, "streams to be handed off")
            assert state(site)["asked"] == {"rule": STREAMS // 2, "view": STREAMS // 2}
            assert (state(site)["clients"], state(site)["checked_out"]) == (STREAMS, 0)
            request_readers(site)
            post(site, "/publish/news", "to all")
            assert [client.texts(1) for *_, client in clients] == [["to all"]] * STREAMS
            check_idle(site, begun)
            while_they_leave = thread.submit(request_readers, site)
        while_they_leave.result()
    until(lambda: state(site)["asked"].get("callback") == STREAMS // 2, "all callbacks")
    until(lambda: state(site)["clients"] == 0, "all streams to have ended")
    request_readers(site)
    check_idle(site, begun)


def test_recheck_returns_its_database_connections(site: Server) -> None:
    begun = len(site.log)
    with streaming(site) as clients:
        post(site, "/readers/bob", False)
        for name in READERS:
            post(site, f"/recheck/{name}")
        request_readers(site)
        until(lambda: state(site)["asked"]["rule"] == STREAMS // 2 * 2, "the rule to be asked once more for each")
        check_idle(site, begun)
        post(site, "/publish/news", "to the rest")
        for path, name, client in clients:  # streams of views end, and their clients reconnect
            is_kept = path != "/own" and name != "bob"
            assert client.texts(1) == ["to the rest"] * is_kept
    until(lambda: state(site)["asked"].get("callback") == STREAMS // 2, "all callbacks")


def test_streams_that_keep_their_sessions_exhaust_the_pool(site: Server) -> None:
    with ExitStack() as stack:
        for name in READERS[:2]:
            stack.enter_context(connected(site, f"/held?reader={name}")).read_some()
        assert state(site)["checked_out"] == 2
        status, _ = answer(site, "GET", "/readers")
        assert status == 500
    assert EXHAUSTED in site.log
    until(lambda: state(site)["checked_out"] == 0, "their connections to be back")
    request_readers(site)
