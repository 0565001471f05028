"""An app with channels that every client may read, and what its streams have received."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from flask_sse_emitters import SSE, Event
from flask_sse_emitters.testing import OpenStream, open_stream
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


class Board:
    """An app with the endpoints of channels, and a client of it."""

    def __init__(self, **config: Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update(config)
        self.sse = SSE(self.app)
        self.app.register_blueprint(self.sse.blueprint, url_prefix="/events")
        self.sse.authorizer(lambda _: True)
        self.client = self.app.test_client()

    def publish(self, channel: str, *texts: object) -> list[str]:
        return [self.sse.publish(channel, str(text)) for text in texts]

    def open(self, *channels: str, last: str | None = None) -> Any:
        query = "&".join(f"channel={channel}" for channel in channels)
        headers = {} if last is None else {"Last-Event-ID": last}
        return open_stream(self.client, f"/events?{query}", headers=headers)

    def replayed(self, *channels: str, last: str | None = None) -> list[Event]:
        with self.open(*channels, last=last) as stream:
            return list(stream.ready())


def texts(events: list[Event]) -> list[str]:
    return [event.data for event in events]


def gap_of(events: list[Event]) -> dict[str, str]:
    """Return the content of the only gap, which comes first and has no id."""
    assert [event.event for event in events].count("gap") == 1
    assert (events[0].event, events[0].id) == ("gap", None)
    found: dict[str, str] = json.loads(events[0].data)
    assert list(found) == ["requested", "oldest", "newest"]
    return found


def moved(event_id: str, by: int) -> str:
    epoch, offset = event_id.split("-")
    return f"{epoch}-{int(offset) + by}"


@contextmanager
def closing_board(url: str, **config: Any) -> Iterator[Board]:
    board = Board(SSE_BROKER_URL=url, **config)
    yield board
    board.sse.close()


def read(stream: OpenStream, count: int) -> list[Event]:
    """Read ``count`` events, and wait until they have come."""
    events: list[Event] = []

    def has_all() -> bool:
        events.extend(stream.ready())
        return len(events) >= count

    until(has_all, f"{count} events")
    return events


def config(server: RedisServer, **more: Any) -> dict[str, str]:
    return {
        "CONFIG": json.dumps({"SSE_BROKER_URL": server.url, "SSE_HEARTBEAT": 0.2, "SSE_PUBLISH_SECONDS": 1, **more})
    }


def board_reads(board: Board, *channels: str, last: str, count: int) -> list[Event]:
    with board.open(*channels, last=last) as stream:
        return read(stream, count)
