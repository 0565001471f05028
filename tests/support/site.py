"""An app with a rule of access, and clients that give their name in a header."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request

from flask_sse_emitters import SSE, SseEmitter
from flask_sse_emitters.access import Rule
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from flask_sse_emitters.testing import OpenStream, open_stream


class Site:
    """An app with a rule, and clients that give their name in a header."""

    def __init__(self, rule: Rule | None = None, debug: bool = False, **config: Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update(config)
        self.app.debug = debug
        self.app.secret_key = "only a test's"
        self.sse = SSE(self.app)
        self.app.register_blueprint(self.sse.blueprint, url_prefix="/events")
        if rule is not None:
            self.sse.authorizer(rule)
        self.client = self.app.test_client()

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def open(self, *channels: str, user: str = "", **options: Any) -> Any:
        query = "&".join(f"channel={channel}" for channel in channels)
        return open_stream(self.client, f"/events?{query}", headers={"User": user}, **options)

    def counts(self) -> tuple[int, int, int]:
        """Return the number of clients, of identities, and of limits that are counted."""
        streams = self.sse.find_state().streams
        return len(streams), len(streams._owned), len(streams._limits)


def by_header(_channel: str) -> str:
    return request.headers.get("User", "")


def emitter_of(stream: OpenStream) -> SseEmitter:
    source = stream._body._stream
    assert source is not None
    registry = source.registry
    assert isinstance(registry, StreamRegistry)
    return registry._open[source]


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records]
