"""Test events that the monitor publishes."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker
from flask_sse_emitters.testing import open_stream, published
from tests.support.monitored import MONITOR, TEST_EVENT, open_app


def test_monitor_publishes_test_event_as_text_or_json() -> None:
    app, sse = open_app()
    client = app.test_client()
    with published(sse, "orders", "~ann") as events:
        answers = [
            client.post(f"{MONITOR}/publish", json=TEST_EVENT),
            client.post(f"{MONITOR}/publish", json={**TEST_EVENT, "event": "", "text": "[1, 2]", "is_json": True}),
            client.post(f"{MONITOR}/publish", json={**TEST_EVENT, "channel": "~ann", "text": "null", "is_json": True}),
        ]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert [event.id for event in events] == [answer.json["id"] for answer in answers if answer.json]
    assert [(event.event, event.data) for event in events] == [
        ("created", "hello"),
        (None, "[1, 2]"),
        ("created", "null"),
    ]


def test_monitor_response_to_test_event_counts_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = open_app()
    client = app.test_client()
    found = []
    with open_stream(app.test_client(), "/events?channel=orders"):
        found.append(client.post(f"{MONITOR}/publish", json=TEST_EVENT).json)
    found.append(client.post(f"{MONITOR}/publish", json={**TEST_EVENT, "channel": "unread"}).json)

    def away(_broker: Broker, _channel: str) -> int:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(Broker, "clients_elsewhere", away)
    found.append(client.post(f"{MONITOR}/publish", json=TEST_EVENT).json)
    assert [answer and answer["clients"] for answer in found] == [1, 0, None]


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"channel": "two words"}, 400, "ASCII letters"),
        ({"channel": ""}, 400, "ASCII letters"),
        ({"channel": 7}, 400, "each a text"),
        ({"text": None}, 400, "each a text"),
        ({"event": "two\nlines"}, 400, "event"),
        ({"event": "gap"}, 400, "take another one"),
        ({"event": "open"}, 400, "must not be named 'open'"),
        ({"event": "error"}, 400, "must not be named 'error'"),
        ({"text": "{", "is_json": True}, 400, "no JSON"),
        ({"text": "[" * 100_000, "is_json": True}, 400, "no JSON"),
        ({"text": "x" * 3000}, 400, "SSE_MAX_EVENT_BYTES"),
        ({"text": "x" * 300_000}, 413, "SSE_MAX_EVENT_BYTES"),
    ],
)
def test_monitor_refuses_invalid_test_event_with_reason(changed: dict[str, Any], status: int, error: str) -> None:
    app, sse = open_app(SSE_MAX_EVENT_BYTES=2000 if "x" in str(changed.get("text")) else 1_000_000)
    with published(sse, "orders") as events:
        response = app.test_client().post(f"{MONITOR}/publish", json={**TEST_EVENT, **changed})
    assert response.status_code == status
    assert response.json is not None
    assert error in response.json["error"]
    assert events == []


@pytest.mark.parametrize("body", [b"[" * 200_000, b"{", b"\xff", b"NaN", b"null", b"[]", b""])
def test_monitor_publish_body_that_is_no_json_object_is_a_400(body: bytes) -> None:
    app, _ = open_app()
    response = app.test_client().post(f"{MONITOR}/publish", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.json == {"error": "Send channel, event and text, each a text."}
