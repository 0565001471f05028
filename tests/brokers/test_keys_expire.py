"""Every key in Redis expires, and those of a channel with clients are renewed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from flask_sse_emitters.brokers import Broker
from tests.support.board import Board
from tests.support.broker_calls import listening, publish
from tests.support.waiting import PATIENCE, until

#: Milliseconds for which a channel without events is remembered.
UNUSED_MS = 600_000


def test_keys_expire_all(client: Any, board: Board) -> None:
    board.sse.publish("a", "x", key="k")
    with board.open("a"):
        until(lambda: len(client.keys()) == 6, "the client to be counted")
        left = {key.decode().split(":", 2)[2]: client.pttl(key) for key in client.keys("*{a}*")}
        here = [client.pttl(key) for key in client.keys("*{here}*")]
        [revoked] = [client.pttl(key) for key in client.keys("*{!revoked}*")]
    assert 290_000 < left["key:k"] <= 300_000
    assert 290_000 < left["log"] <= 300_000
    assert left["at"] > 6 * 86_400_000
    assert revoked > 6 * 86_400_000
    assert all(0 < ttl <= 12_000 for ttl in here)


def test_keys_of_unused_channel_are_renewed_by_lookup(client: Any, new_broker: Callable[[], Broker]) -> None:
    broker, looked_up = new_broker(), threading.Event()
    listening(broker, "asked-for")
    assert 0 < client.pttl("sse:{asked-for}:at") <= UNUSED_MS
    client.pexpire("sse:{asked-for}:at", UNUSED_MS // 2)
    broker.look_again("asked-for", looked_up.set)
    assert looked_up.wait(PATIENCE)
    assert UNUSED_MS // 2 < client.pttl("sse:{asked-for}:at") <= UNUSED_MS
    publish(broker, "asked-for", "x")
    assert client.pttl("sse:{asked-for}:at") > 6 * 86_400_000
