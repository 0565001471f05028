"""What the monitor shows of the clients, the events and the ends of streams."""

from __future__ import annotations

import json
from contextlib import ExitStack

from flask_sse_emitters import CloseReason
from flask_sse_emitters.testing import open_stream
from tests.support.monitored import MONITOR, await_event, open_app
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
