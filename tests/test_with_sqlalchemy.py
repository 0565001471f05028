"""Streams hold no connection of the database: with a pool of two, hundreds are open and all else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .client import Client, answer, connected, get, post
from .servers import Server
from .waiting import until

#: So many streams are open at once, a half of them from the blueprint and a half from a view.
STREAMS = 200

READERS = ["ada", "bob", "cyd", "dan"]

#: What the pool says then.
EXHAUSTED = "QueuePool limit of size 2 overflow 0 reached"


@pytest.fixture(params=["gevent", "gevent_off", "gthread"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    env = {"DATABASE": f"sqlite:///{tmp_path / 'readers.sqlite'}"}
    threads = ("--threads", str(STREAMS + 20)) if request.param == "gthread" else ()
    with Server(request.param, "tests.database_app:app", env=env, arguments=threads) as site:
        for name in READERS:
            post(site, f"/readers/{name}", True)
        yield site
        site.kill()


@contextmanager
def streaming(site: Server) -> Iterator[list[tuple[str, str, Client]]]:
    """Many streams at once, of all readers in turns: each with its path and its reader."""
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


def ask(site: Server, times: int = 60) -> None:
    """Make ordinary requests, which need the database, several at once."""
    with ThreadPoolExecutor(6) as threads:
        for found in threads.map(lambda _: get(site, "/readers"), range(times)):
            assert found == READERS


def check_idle(site: Server) -> None:
    """Nobody holds a connection, and nobody ever waited in vain for one."""
    until(lambda: (now := state(site))["checked_out"] == 0 and not now["is_calling"], "all connections to be back")
    assert EXHAUSTED not in site.log
    assert "Traceback" not in site.log


def test_two_connections_are_enough_for_two_hundred_streams_that_ask_the_database(site: Server) -> None:
    with ThreadPoolExecutor(1) as thread:
        with streaming(site) as clients:
            handed_off = STREAMS if site.kind == "gevent" else 0
            until(lambda: state(site)["handed_off"] == handed_off, "streams to be handed off, or not")
            assert state(site)["asked"] == {"rule": STREAMS // 2, "view": STREAMS // 2}
            assert (state(site)["clients"], state(site)["checked_out"]) == (STREAMS, 0)
            ask(site)
            post(site, "/publish", "to all")
            assert [client.texts(1) for *_, client in clients] == [["to all"]] * STREAMS
            check_idle(site)
            while_they_leave = thread.submit(ask, site)
        while_they_leave.result()
    until(lambda: state(site)["asked"].get("callback") == STREAMS // 2, "all callbacks")
    until(lambda: state(site)["clients"] == 0, "all to be gone")
    ask(site)
    check_idle(site)


def test_a_recheck_gives_its_connections_back(site: Server) -> None:
    with streaming(site) as clients:
        post(site, "/readers/bob", False)
        for name in READERS:
            post(site, f"/recheck/{name}")
        ask(site)
        check_idle(site)
        assert state(site)["asked"]["rule"] == STREAMS // 2 * 2, "once more for each"
        post(site, "/publish", "to the rest")
        for path, name, client in clients:  # those of views end: their clients ask the view
            is_kept = path != "/own" and name != "bob"
            assert client.texts(1) == ["to the rest"] * is_kept


@pytest.mark.parametrize("site", ["gevent", "gthread"], indirect=True)
def test_two_streams_that_keep_their_sessions_would_exhaust_the_pool(site: Server) -> None:
    with ExitStack() as stack:
        for name in READERS[:2]:
            stack.enter_context(connected(site, f"/held?reader={name}")).read_some()
        assert state(site)["checked_out"] == 2
        status, _ = answer(site, "GET", "/readers")
        assert status == 500
    assert EXHAUSTED in site.log
    until(lambda: state(site)["checked_out"] == 0, "their connections to be back")
    ask(site)
