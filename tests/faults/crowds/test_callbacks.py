"""Callbacks that raise, block, or change lists during changes: no stream is harmed."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest

from tests.faults.processes.process_servers import await_heartbeats
from tests.support.client import Client, connected, get, post
from tests.support.servers import Server
from tests.support.waiting import until

#: Threads that run callbacks at the same time, at most.
HELPERS = 8


@pytest.mark.parametrize("kind", ["gevent", "gevent_off", "gthread", "sync"])
def test_callbacks_that_raise_block_or_recurse_harm_no_stream(kind: str) -> None:
    with (
        Server(kind, "tests.apps.faults.crowd_callbacks:app") as server,
        connected(server, "/connect/a/witness?heartbeat=0.1") as witness,
    ):
        assert witness.texts(1) == ["welcome"]
        _callbacks_raise(server, witness)
        _callbacks_recurse(server)
        _callbacks_make_a_chain(server)
        _callbacks_block(server, witness)
        final = get(server, "/state/a")
        assert (final["count"], final["clients"]) == (1, 1)


def _callbacks_raise(server: Server, witness: Client) -> None:
    """Each is logged once with its traceback, and the next one runs, also where one would end its thread."""
    with connected(server, "/connect/a/raiser?habit=raise") as client:
        client.texts(1)
        client.reset()
    until(lambda: _journal_has(server, "raiser is over"), "the callback after those that raise")
    log = server.log
    assert [log.count(f"the {which} of raiser") for which in ("first", "second")] == [1, 1]
    assert len(re.findall(r"Traceback .*?in fail\n.*?ValueError: the first of raiser", log, re.DOTALL)) == 1
    assert post(server, "/send/a", "still here") == {"reached": 1}
    assert witness.texts(1) == ["still here"]


def _callbacks_recurse(server: Server) -> None:
    """One sends to the list it was in, ends itself and another, adds to the list and removes from it."""
    with ExitStack() as stack:
        recursing, other, removed, following = (
            stack.enter_context(connected(server, f"/connect/b/{path}"))
            for path in ("recursing?habit=recurse", "other", "removed", "next")
        )
        for client in (recursing, other, removed, following):
            assert client.texts(1) == ["welcome"]
        post(server, "/complete/recursing")
        assert recursing.rest() == b""
        assert other.texts(2) == ["recursing is gone", "the late one of recursing is gone"]
        assert following.texts(1) == ["recursing is gone"]
        following.rest()
        assert removed.texts(1) == ["recursing is gone"]
        until(lambda: _journal_has(server, "recursing has registered one more"), "all callbacks")
        now = get(server, "/state/b")
        assert now["count"] == 1
        own = [line for line in now["journal"] if line.startswith("recursing")]
        assert own == ["recursing cannot send to itself", "recursing is over", "recursing has registered one more"]


def _callbacks_make_a_chain(server: Server) -> None:
    """The end of each ends the next one: too deep for recursion."""
    with connected(server, "/connect/c/last") as client:
        client.texts(1)
        assert post(server, "/chain/last?length=10000") == {"length": 10_000}
        assert client.rest() == b""
    assert get(server, "/state/a")["chain"] == 0


def _callbacks_block(server: Server, witness: Client) -> None:
    """Block all threads for callbacks: streams go on, ends are noticed, and the waiting callbacks run later."""
    names = [f"blocker{number}" for number in range(HELPERS + 4)]
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server, f"/connect/d/{name}?habit=block")) for name in names]
        for client in clients:
            client.texts(1)
    until(lambda: len(_blocked(server)) == HELPERS, "as many callbacks to begin as may run at once")
    until(lambda: get(server, "/state/d")["count"] == 0, "all to leave their list")
    now = get(server, "/state/d")
    assert now["clients"] == 1, "a client with waiting callbacks has left all the same"
    assert post(server, "/send/a", "while they block") == {"reached": 1}
    assert witness.texts(1) == ["while they block"]
    await_heartbeats(witness, 5)
    with connected(server, "/connect/a/newcomer") as newcomer:
        assert newcomer.texts(1) == ["welcome"]
        assert post(server, "/send/a", "to both") == {"reached": 2}
        assert (witness.texts(1), newcomer.texts(1)) == (["to both"], ["to both"])
    until(lambda: get(server, "/state/a")["count"] == 1, "the newcomer's end to be noticed")
    assert len(_blocked(server)) == HELPERS
    assert not _journal_has(server, "newcomer is over"), "it waits for one of those"
    post(server, "/release")
    over = {f"{name} is over" for name in [*names, "newcomer"]}
    until(lambda: over <= set(get(server, "/state/d")["journal"]), "the callbacks that have waited")


def _blocked(server: Server) -> list[str]:
    return [line for line in get(server, "/state/d")["journal"] if line.endswith("blocks")]


def _journal_has(server: Server, line: str) -> bool:
    return line in get(server, "/state/a")["journal"]
