"""Streams hold no database connection: with a pool of two, hundreds are open and other requests work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client, answer, connected, get, post
from tests.support.servers import Server
from tests.support.waiting import until

#: Number of concurrent streams, half of them from the blueprint and half from a view.
STREAMS = 200

READERS = ["ada", "bob", "cyd", "dan"]

#: The error of an exhausted pool.
EXHAUSTED = "QueuePool limit of size 2 overflow 0 reached"


@pytest.fixture(params=["gevent", "gevent_off", "gthread"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    env = {"DATABASE": f"sqlite:///{tmp_path / 'readers.sqlite'}"}
    threads = ("--threads", str(STREAMS + 20)) if request.param == "gthread" else ()
    with Server(request.param, "tests.apps.database:app", env=env, arguments=threads) as site:
        for name in READERS:
            post(site, f"/readers/{name}", True)
        yield site


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


def check_idle(site: Server) -> None:
    """Check that no connection is held, and that no request ever failed to get one."""
    until(lambda: (now := state(site))["checked_out"] == 0 and not now["is_calling"], "all connections to be back")
    assert EXHAUSTED not in site.log
    assert "Traceback" not in site.log


def test_pool_of_two_serves_200_streams_with_database_rules(site: Server) -> None:
    with ThreadPoolExecutor(1) as thread:
        with streaming(site) as clients:
            handed_off = STREAMS if site.kind == "gevent" else 0
            until(lambda: state(site)["handed_off"] == handed_off, "streams to be handed off, or not")
            assert state(site)["asked"] == {"rule": STREAMS // 2, "view": STREAMS // 2}
            assert (state(site)["clients"], state(site)["checked_out"]) == (STREAMS, 0)
            request_readers(site)
            post(site, "/publish", "to all")
            assert [client.texts(1) for *_, client in clients] == [["to all"]] * STREAMS
            check_idle(site)
            while_they_leave = thread.submit(request_readers, site)
        while_they_leave.result()
    until(lambda: state(site)["asked"].get("callback") == STREAMS // 2, "all callbacks")
    until(lambda: state(site)["clients"] == 0, "all streams to have ended")
    request_readers(site)
    check_idle(site)


def test_recheck_returns_its_database_connections(site: Server) -> None:
    with streaming(site) as clients:
        post(site, "/readers/bob", False)
        for name in READERS:
            post(site, f"/recheck/{name}")
        request_readers(site)
        check_idle(site)
        assert state(site)["asked"]["rule"] == STREAMS // 2 * 2, "once more for each"
        post(site, "/publish", "to the rest")
        for path, name, client in clients:  # streams of views end, and their clients reconnect
            is_kept = path != "/own" and name != "bob"
            assert client.texts(1) == ["to the rest"] * is_kept


@pytest.mark.parametrize("site", ["gevent", "gthread"], indirect=True)
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
