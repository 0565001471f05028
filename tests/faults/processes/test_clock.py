"""Changed clocks, of a server and of Redis: streams, ids and history go on."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import hiredis
import pytest

from tests.faults.processes.process_servers import await_heartbeats, config, serving
from tests.support.board import Board, read, texts
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import connected, get, post
from tests.support.programs import program
from tests.support.waiting import until


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


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The digests of scripts to which Redis says a time that is ``offset`` away, by those of their own text.

    Their text is changed as it is sent. (libfaketime does not bear Redis.)
    """
    changed: dict[str, str] = {}
    pack: Any = hiredis.pack_command
    later = "{redis.call('TIME')[1] + (redis.call('GET', 'offset') or 0), redis.call('TIME')[2]}"

    def change(part: Any) -> Any:
        if "redis.call('TIME')" not in str(part):
            return changed.get(part, part)
        text = part.replace("redis.call('TIME')", later)
        changed[_digest(part)] = _digest(text)
        return text

    monkeypatch.setattr(hiredis, "pack_command", lambda parts: pack(tuple(map(change, parts))))
    return changed


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(("offset", "history"), [(HOUR, 1000), (-HOUR, 1000), (-HOUR, 0)])
def test_changed_clock_of_redis_loses_no_event(offset: int, history: int, scripts: dict[str, str]) -> None:
    """It is set by an hour, while events are kept for five minutes. Put back, all events seem to come late."""
    with RedisServer() as server:
        board = Board(SSE_BROKER_URL=server.url, SSE_HISTORY=history)
        with closing(board.sse), board.open("a") as stream:
            until(lambda: board.publish("a", "before") and "before" in texts(list(stream.ready())), "it to be live")
            server.run(f"SET offset {offset}")
            first, *_ = board.publish("a", *range(20))
            got: list[str] = []
            while "19" not in got:
                got += texts(read(stream, 1))
            assert [text for text in got if text != "before"] == [str(number) for number in range(20)]
            assert scripts
            if history:
                with board.open("a", last=first) as again:
                    assert texts(read(again, 19)) == [str(number) for number in range(1, 20)]
