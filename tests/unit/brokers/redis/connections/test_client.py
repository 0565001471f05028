"""Redis: its URLs, the slots of connections to it, and what processes report through it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import NoScriptError

from flask_sse_emitters.brokers.redis.connections.client import Client
from flask_sse_emitters.brokers.redis.connections.url import Address
from flask_sse_emitters.brokers.redis.messages import read_process
from flask_sse_emitters.brokers.redis.scripts import Script
from flask_sse_emitters.brokers.redis.scripts.processes import CHECK_FORMAT
from flask_sse_emitters.brokers.remote.slots import FairSemaphore
from tests.support.waiting import PATIENCE, until


def test_connection_slots_are_granted_in_order_of_waiting() -> None:
    slots, order = FairSemaphore(1), []

    def take(number: int) -> None:
        with slots.slot(PATIENCE):
            order.append(number)

    with slots.slot(PATIENCE):
        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for count, thread in enumerate(threads, 1):
            thread.start()
            until(lambda count=count: len(slots._waiting) == count, "the thread to wait")  # type: ignore[misc]
        with pytest.raises(TimeoutError, match="all 1 connections are busy"), slots.slot(0.01):
            pass
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    with slots.slot(PATIENCE):
        assert slots._free == 0


@pytest.mark.parametrize("about", [b"[]", b"7", b"no json", b"\xff"])
def test_process_report_of_any_bytes_is_parsed(about: bytes) -> None:
    found = read_process(
        b"id", b"11000", [b"a", b"2", b"!about", about, b"b", b"many", b"!revoked", b"1", b"\xff", b"1"]
    )
    assert found == {"id": "id", "age": 1.0, "channels": {"a": 2, "\ufffd": 1}}


@pytest.mark.parametrize(
    ("url", "shown", "db"),
    [
        ("redis://localhost", "redis://localhost", 0),
        ("rediss://user:secret@redis.example:6380/2?ssl_cert_reqs=none", "rediss://redis.example:6380/2", 2),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock", 1),
        ("redis+sentinel://:secret@a:1,b:2/main/5", "redis+sentinel://a:1,b:2/main/5", 5),
        ("rediss+cluster://:secret@a,b", "rediss+cluster://a,b", 0),
    ],
)
def test_url_is_shown_without_password(url: str, shown: str, db: int) -> None:
    address = Address(url)
    assert (address.shown, address.db) == (shown, db)


def test_script_that_redis_forgot_in_between_runs_only_where_it_had_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after ``SCRIPT FLUSH`` by somebody else: an event must not be published twice."""
    client, script = Client(Address("redis://x"), "format"), Script("return ARGV[1]")
    calls = [(["key"], [number]) for number in range(4)]
    asked: list[Any] = []

    def ask(commands: Sequence[Sequence[Any]]) -> list[Any]:
        if commands[0][1] == CHECK_FORMAT.digest:
            return [1]
        asked.append([(command[:2], command[-1]) for command in commands])
        return [b"ran", NoScriptError(), b"ran", NoScriptError()] if len(asked) == 1 else [b"late"] * len(commands)

    monkeypatch.setattr(client._connections, "ask", ask)
    assert client.run_all(script, calls) == [b"ran", b"late", b"ran", b"late"]
    by_digest, by_text = ("EVALSHA", script.digest), ("EVAL", script.text)
    assert asked == [[(by_digest, number) for number in range(4)], [(by_text, 1), (by_text, 3)]]
