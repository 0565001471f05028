"""Changed clocks, of a server and of Redis: streams, ids and history go on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from flask_sse_emitters.brokers.redis.scripts import LOOK_UP, PUBLISH, Script
from flask_sse_emitters.brokers.redis.subscriber import clock as redis_clock
from flask_sse_emitters.runtime.scheduler import SCHEDULER
from tests.faults.process_servers import await_heartbeats, config, serving
from tests.support.board import closing_board, read, texts
from tests.support.client import connected, get, post
from tests.support.programs import program
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until


class Clock:
    """The time of day of processes started with :attr:`env`; their monotonic clock is the real one.

    libfaketime stands between them and the system, and reads this file each time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        libraries = sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"))
        assert libraries, "faketime is there, and its library is not"
        self.env = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set the time of day this many seconds away from the true time."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._path)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    program("faketime", "faketime")
    return Clock(tmp_path / "offset")


HOUR, YEARS = 3600, 10 * 365 * 86_400


@pytest.mark.parametrize(("kind", "broker"), [("gevent", "memory"), ("gthread", "redis")])
def test_changed_clock_of_the_server_does_not_affect_streams(kind: str, broker: str, clock: Clock) -> None:
    """Timeouts, heartbeats, ids and history hold while the time of day is set ten years and an hour ahead and back."""
    with ExitStack() as stack:
        url = "memory://" if broker == "memory" else stack.enter_context(RedisServer()).url
        settings = {**config(SSE_HEARTBEAT=0.2, SSE_BROKER_URL=url), **clock.env}
        server = stack.enter_context(serving(kind, env=settings, arguments=["--preload"]))
        client = stack.enter_context(connected(server, "/events/a"))
        post(server, "/publish/a", "first")
        [first] = client.events(1)
        ids = [first.id]
        began, brief = get(server, "/time"), []
        for number, offset in enumerate((YEARS, -YEARS, HOUR, -HOUR)):
            brief.append(stack.enter_context(connected(server, "/brief")))
            clock.set(offset)
            now = get(server, "/time")
            ahead = now["time"] - began["time"] - (now["monotonic"] - began["monotonic"])
            assert abs(ahead - offset) < 5
            post(server, "/publish/a", f"event {number}")
            [event] = client.events(1)
            assert event.data == f"event {number}"
            ids.append(event.id)
            await_heartbeats(client, 1)
        assert all(b"stream open" in each.rest() for each in brief)
        epochs, offsets = zip(*(str(each).split("-") for each in ids), strict=True)
        assert len(set(epochs)) == 1
        assert [int(offset) for offset in offsets] == [1, 2, 3, 4, 5]
        with connected(server, "/events/a", headers={"Last-Event-ID": str(ids[0])}) as again:
            assert again.texts(4) == [f"event {number}" for number in range(4)]
        until(lambda: get(server, "/stats")["closed"] == {"timeout": 4, "disconnected": 1}, "all ends")


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_changed_clock_of_redis_loses_no_event(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set by an hour, while events are kept for five minutes: the scripts have another time from then on."""
    with RedisServer() as redis, closing_board(redis.url) as board, board.open("a") as stream:
        stream.ready()
        subscription = board.sse._channels().subscription("a")
        until(lambda: subscription.log is not None, "the channel to be known")
        for script in (PUBLISH, LOOK_UP):
            later = Script(script.text.replace("clock[1] * 1000", f"(clock[1] + {offset}) * 1000"))
            assert later.text != script.text
            monkeypatch.setattr(script, "text", later.text)
            monkeypatch.setattr(script, "digest", later.digest)
        first, *_ = board.publish("a", *range(4))
        assert texts(read(stream, 4)) == list("0123")
        with board.open("a", last=first) as again:
            assert texts(read(again, 3)) == list("123")
        assert subscription.log is not None
        kept = [frame.at - SCHEDULER.clock() for frame in subscription.log.after(0, 4)]
        assert len(kept) == 4
        assert all(-PATIENCE < age <= 0 for age in kept), "their times of publishing, by the clock of this process"


def test_late_events_without_history_are_still_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process stood still, for example: it cannot tell whether the clock of Redis was changed."""
    monkeypatch.setattr(redis_clock, "LATE_SECONDS", 0.0)
    with RedisServer() as redis, closing_board(redis.url, SSE_HISTORY=0) as board, board.open("a") as stream:
        stream.ready()
        subscription = board.sse._channels().subscription("a")
        until(lambda: subscription.log is not None, "the channel to be known")
        stream.ready()  # from here on the list delivers to it
        board.publish("a", *range(200))
        assert texts(read(stream, 200)) == [str(number) for number in range(200)]
