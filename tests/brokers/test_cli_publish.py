"""``flask sse publish`` to a real Redis."""

from __future__ import annotations

import signal
import time

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import published
from tests.brokers.commands import app_at, environment, invoked, run
from tests.support.client import new_name
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize("arguments", [("publish", "orders", "x"), ("listen", "orders")], ids=["publish", "listen"])
def test_cli_waits_for_a_silent_redis_no_longer_than_sse_publish_seconds(arguments: tuple[str, ...]) -> None:
    with RedisServer() as server:
        server.signal(signal.SIGSTOP)
        url = f"{server.url}?socket_timeout=60&socket_connect_timeout=60"
        began = time.monotonic()
        result = invoked(url, *arguments, SSE_PUBLISH_SECONDS=0.3)
        assert time.monotonic() - began < PATIENCE
    assert result.exit_code == 1
    assert "Error: Redis did not " in result.stderr


# publish


def test_cli_publish_prints_the_id_and_the_number_of_readers(server: RedisServer) -> None:
    channel = new_name()
    with app_at(server.url) as (_, sse), published(sse, channel) as events:
        data = "ein Täg\nzwei Zeilen\r\n".encode()
        found = run("publish", channel, "-", "--event", "day", "--retry", "7", env=environment(server.url), data=data)
    assert (found.returncode, found.stderr) == (0, b"0 clients read it\n")
    event_id = found.stdout.decode().removesuffix("\n")
    assert events == [Event("ein Täg\nzwei Zeilen", event="day", id=event_id)]


def test_cli_publish_data_can_be_json_or_stdin_or_begin_with_a_dash(server: RedisServer) -> None:
    channel = new_name()
    with app_at(server.url) as (_, sse), published(sse, channel) as events:
        for arguments, data in [
            (["--json", '{"b": [1, null, "ü"]}'], None),
            (["--json", "-", "--event", "made"], b'"a text"\n'),
            (["--", "-5"], None),
            (["-"], b""),
        ]:
            result = invoked(server.url, "publish", channel, *arguments, data=data)
            assert result.exit_code == 0, result.stderr
    assert [event.data for event in events] == ['{"b": [1, null, "\\u00fc"]}', "a text", "-5", ""]
    assert [event.event for event in events] == [None, "made", None, None]


def test_cli_publish_with_a_key_publishes_once(server: RedisServer) -> None:
    channel = new_name()
    ids = [invoked(server.url, "publish", channel, "x", "--key", "k").stdout.strip() for _ in range(2)]
    with app_at(server.url) as (_, sse):
        ids.append(sse.publish(channel, "x", key="k"))
    assert len(set(ids)) == 1
    assert ids[0].endswith("-1")
