"""``stats()`` on real servers: every delivery, byte, replay and gap is counted once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.client import Client, connected, get, new_name, post
from tests.support.servers import Server
from tests.support.waiting import until

CONFIG = json.dumps({"SSE_HEARTBEAT": 0, "SSE_HISTORY": 10})

KINDS = [
    pytest.param(kind, marks=pytest.mark.xdist_group(f"stats on {kind}"))
    for kind in ("gevent", "gevent_off", "gthread")
]


@pytest.fixture(scope="module", params=KINDS)
def channels(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, "tests.apps.channels:app", env={"CONFIG": CONFIG}) as server:
        yield server


class Counted:
    """The counters of a server, from now on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        until(lambda: get(server, "/stats")["clients"] == 0, "clients of other tests to leave")
        self._before = self._flat()

    def __getitem__(self, name: str) -> Any:
        return self._flat()[name] - self._before[name]

    def _flat(self) -> dict[str, Any]:
        stats = get(self._server, "/stats")
        return {**stats, **{f"publish {name}": value for name, value in stats["publish"].items()}}


def read_until(client: Client, end: bytes) -> int:
    """Return the number of bytes up to this end."""
    read = b""
    while not read.endswith(end):
        read += client.read_some()
    return len(read)


def test_stats_count_every_delivered_event_and_byte_once(channels: Server) -> None:
    a, b, unread = new_name(), new_name(), new_name()
    counted = Counted(channels)
    with ExitStack() as stack:
        only = [stack.enter_context(connected(channels, f"/events?channel={a}")) for _ in range(3)]
        several = stack.enter_context(connected(channels, f"/events?channel={a}&channel={b}"))
        listed = [stack.enter_context(connected(channels, "/connect")) for _ in range(2)]
        until(lambda: get(channels, "/stats")["clients"] == 6, "all clients")
        for number in range(5):
            post(channels, f"/publish/{a}", f"a {number}")
        post(channels, f"/publish/{b}", "b")
        post(channels, f"/publish/{unread}", "unread")
        for number in range(4):
            post(channels, "/send", f"é {number}")
        read = sum(read_until(client, b"a 4\n\n") for client in only)
        read += read_until(several, b"data: b\n\n") + sum(read_until(client, "é 3\n\n".encode()) for client in listed)
        assert counted["deliveries"] == 3 * 5 + 6 + 2 * 4
        assert counted["bytes"] == read
        assert [counted[name] for name in ("replayed", "gaps", "dropped")] == [0, 0, 0]
        assert [counted[name] for name in ("published", "publish count", "publish failed")] == [7, 7, 0]
        assert 0 < counted["publish seconds"] < 60
        stats = get(channels, "/stats")
        assert (stats["slow"], stats["events"]) == ([], {a: 5, b: 1})
        assert stats["pid"] != os.getpid()


def test_stats_count_replayed_events_and_gaps(channels: Server) -> None:
    a, other = new_name(), new_name()
    counted = Counted(channels)
    with connected(channels, f"/events?channel={a}") as client:
        ids = [post(channels, f"/publish/{a}", f"{number} " + "x" * 10_000)["id"] for number in range(1, 21)]
        client.texts(20)
    assert (counted["replayed"], counted["deliveries"]) == (0, 20)
    for last, events, replayed, gaps in [(ids[15], 4, 4, 0), (ids[2], 11, 14, 1)]:
        with connected(channels, f"/events?channel={a}", headers={"Last-Event-ID": last}) as client:
            names = [event.event for event in client.events(events)]
            assert names == ["gap"] * gaps + [None] * (events - gaps)
        assert (counted["replayed"], counted["gaps"]) == (replayed, gaps)
    with connected(channels, f"/events?channel={other}", headers={"Last-Event-ID": "never-7"}) as client:
        assert client.events(1)[0].event == "gap"
    assert (counted["replayed"], counted["gaps"]) == (14, 2)
    assert counted["deliveries"] == 20 + 14
