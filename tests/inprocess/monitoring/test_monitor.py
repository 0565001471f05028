"""What the monitor shows of the clients, the events and the ends of streams, and the test events that it publishes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable, CloseReason
from flask_sse_emitters.brokers import Broker
from flask_sse_emitters.testing import open_stream, published
from tests.support.monitored import MONITOR, TEST_EVENT, await_event, open_app
from tests.support.waiting import until


def test_monitor_figures_show_clients_and_events_but_not_monitors() -> None:
    app, sse = open_app()
    with ExitStack() as stack:
        first = stack.enter_context(open_stream(app.test_client(), "/events?channel=orders&identity=ann"))
        stack.enter_context(open_stream(app.test_client(), "/events?channel=orders&channel=news"))
        for number in range(3):
            sse.publish("orders", number)
        assert len(first.ready()) == 3
        monitor = stack.enter_context(open_stream(app.test_client(), f"{MONITOR}/stream"))
        other = stack.enter_context(open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders"))
        until(lambda: other.ready(), "the other monitor to get events")
        received = await_event(monitor, "figures", lambda figures: figures["monitors"] == 2)
    assert received["point"]["clients"] == 2
    assert received["totals"]["opened"] == 2
    assert received["totals"]["published"] == received["totals"]["confirmed"] == 3
    assert [(each["name"], each["clients"], each["events"]) for each in received["channels"]] == [
        ("orders", 2, 3),
        ("news", 1, 0),
    ]
    assert received["broker"] == {"scheme": "memory", "state": "ok"}
    assert (received["is_shared"], received["sees_all"]) == (False, True)
    assert [process["clients"] for process in received["processes"]] == [2]
    until(lambda: not sse.stats()["clients"], "the clients to have left")
    assert sum(sse.stats()["closed"].values()) == 2, "ends of monitors are not counted"


def test_monitor_figures_show_every_close_reason() -> None:
    app, sse = open_app(SSE_MAX_CLIENTS=1)
    channel = sse.channel("orders")
    with app.test_request_context():
        ended = channel.subscribe()
        ended.complete()
        with ended.response() as response:
            b"".join(response.iter_encoded())
    with open_stream(app.test_client(), "/events?channel=orders"):
        app.test_client().get("/events?channel=orders").close()  # one too many
        with open_stream(app.test_client(), f"{MONITOR}/stream") as monitor:
            received = await_event(monitor, "figures", lambda figures: figures["totals"]["refused"] == 1)
    assert set(received["ends"]) == {reason.name for reason in CloseReason}
    assert received["ends"]["COMPLETED"] == 1
    assert received["point"]["clients"] == 1, "no limit counts the monitor"


def test_monitor_opened_later_gets_earlier_points() -> None:
    app, _ = open_app()
    with open_stream(app.test_client(), f"{MONITOR}/stream") as first:
        point = await_event(first, "figures")["point"]
        with open_stream(app.test_client(), f"{MONITOR}/stream") as second:
            assert await_event(second, "points")[0] == point


def test_monitor_channel_shows_kept_and_new_events() -> None:
    app, sse = open_app()
    before = sse.publish("orders", {"id": 7}, event="created")
    with open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders") as monitor:
        [kept] = await_event(monitor, "kept")["events"]
        after = sse.publish("orders", "two\nlines")
        [come] = await_event(monitor, "events")["events"]
        assert sse.stats()["channels"] == {}, "a monitor is no client of the channel"
    assert (kept["id"], kept["event"], json.loads(kept["data"])) == (before, "created", {"id": 7})
    assert (come["id"], come["event"], come["data"]) == (after, "message", "two\nlines")


def test_monitor_invalid_channel_name_is_a_400() -> None:
    app, _ = open_app()
    with app.test_client().get(f"{MONITOR}/stream?channel=two%20words") as response:
        assert response.status_code == 400


def test_monitor_is_not_limited_by_event_and_pending_limits_of_app() -> None:
    app, sse = open_app(SSE_MAX_EVENT_BYTES=100, SSE_MAX_PENDING=1, SSE_MAX_PENDING_BYTES=100)
    sse.publish("orders", "x")
    with open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders") as monitor:
        events = until(lambda: [each for each in monitor.ready() if each.event == "figures"], "figures")
    assert len(events[0].data) > 100


def test_monitor_publishes_test_event_as_text_or_json() -> None:
    app, sse = open_app()
    changes = [
        {},
        {"event": "", "text": "[1, 2]", "is_json": True},
        {"channel": "~ann", "text": "null", "is_json": True},
    ]
    with published(sse, "orders", "~ann") as events:
        answers = [app.test_client().post(f"{MONITOR}/publish", json={**TEST_EVENT, **each}) for each in changes]
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


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        *((body, "application/json", 400) for body in (b"[" * 200_000, b"{", b"\xff", b"NaN", b"null", b"[]", b"")),
        *(
            (json.dumps(TEST_EVENT).encode(), kind, 415)  # a page of another site may send it
            for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "")
        ),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_monitor_publish_body_that_is_no_json_object_is_refused(body: bytes, kind: str, status: int) -> None:
    app, sse = open_app()
    with published(sse, "orders") as events:
        response = app.test_client().post(f"{MONITOR}/publish", data=body, content_type=kind)
    assert (response.status_code, events) == (status, [])
    assert status == 415 or response.json == {"error": "Send channel, event and text, each a text."}
