"""An app with channels that every client may read, and what its streams have received."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask, request

from flask_sse_emitters import SSE, Event, SseEmitter
from flask_sse_emitters.access import Rule
from flask_sse_emitters.signals import emitter_opened
from flask_sse_emitters.testing import OpenStream, open_stream
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until


class Board:
    """An app with the endpoints of channels, and a client of it that gives its name in a header.

    :ivar emitters: of the streams that have begun, in this order.
    :param rule: its authorizer; by default every client may read every channel.
    """

    def __init__(self, rule: Rule | None = lambda _: True, *, debug: bool = False, **config: Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update(config)
        self.app.debug = debug
        self.app.secret_key = "only a test's"
        self.sse = SSE(self.app)
        self.app.register_blueprint(self.sse.blueprint, url_prefix="/events")
        if rule is not None:
            self.sse.authorizer(rule)
        self.client = self.app.test_client()
        self.emitters: list[SseEmitter] = []
        emitter_opened.connect(self._note_opened, self.app)

    @property
    def clients(self) -> int:
        """The number of open streams."""
        found: int = self.sse.stats()["clients"]
        return found

    def publish(self, channel: str, *texts: object) -> list[str]:
        return [self.sse.publish(channel, str(text)) for text in texts]

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def open(self, *channels: str, user: str = "", last: str | None = None, **options: Any) -> Any:
        query = "&".join(f"channel={channel}" for channel in channels)
        headers = {"User": user} | ({} if last is None else {"Last-Event-ID": last})
        return open_stream(self.client, f"/events?{query}", headers=headers, **options)

    def replayed(self, *channels: str, last: str | None = None) -> list[Event]:
        with self.open(*channels, last=last) as stream:
            return list(stream.ready())

    def _note_opened(self, _app: Flask, emitter: SseEmitter) -> None:
        self.emitters.append(emitter)


def by_header(_channel: str) -> str:
    """Let every client read that gives its name, which is its identity."""
    return request.headers.get("User", "")


def completed(emitter: SseEmitter) -> SseEmitter:
    emitter.complete()
    return emitter


def journal_of(emitter: SseEmitter) -> list[str]:
    """Return a list to which its callbacks add their names as they run."""
    journal: list[str] = []
    emitter.on_completion(lambda: journal.append("completion"))
    emitter.on_timeout(lambda: journal.append("timeout"))
    emitter.on_error(lambda error: journal.append(f"error: {error}"))
    return journal


def texts(events: list[Event]) -> list[str]:
    return [event.data for event in events]


def gap_of(events: list[Event]) -> dict[str, str]:
    """Return the content of the only gap, which comes first and has no id."""
    assert [event.event for event in events].count("gap") == 1
    assert (events[0].event, events[0].id) == ("gap", None)
    found: dict[str, str] = json.loads(events[0].data)
    assert list(found) == ["requested", "oldest", "newest"]
    return found


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records]


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
