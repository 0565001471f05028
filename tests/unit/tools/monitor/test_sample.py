"""What a monitor shows of a channel's events: of limited number and size, whatever is published."""

from __future__ import annotations

import json
from threading import Event as Flag
from typing import Any

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.brokers.event_ids import Position
from flask_sse_emitters.brokers.event_log import with_id
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.runtime.scheduler import FIGURES, SCHEDULER
from flask_sse_emitters.tools.monitor.audience import MonitorClients
from flask_sse_emitters.tools.monitor.sample import BYTES_SHOWN, EVENTS_SHOWN, ChannelSample
from flask_sse_emitters.wire.frame import Frame, make_frame
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler
from tests.unit.tools.monitor.feeding import feeder_at, watching


def test_monitor_sample_keeps_order_if_the_first_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse, broker = feeder_at()
    sample = ChannelSample("orders", broker)
    received: list[str] = []
    shows, goes_on = Flag(), Flag()

    def show(_list: MonitorClients, name: str, data: Any) -> None:
        if name == "events" and not shows.is_set():
            shows.set()
            goes_on.wait(PATIENCE)
        received.extend(event["data"] for event in data["events"])

    monkeypatch.setattr(MonitorClients, "send_json", show)
    sample.open()
    try:
        sse.publish("orders", "first")
        assert shows.wait(PATIENCE)
        sse.publish("orders", "second")
        until(lambda: received or SCHEDULER._pools[FIGURES]._jobs, "the second to be sent, or to wait")
    finally:
        goes_on.set()
    until(lambda: len(received) == 2, "both")
    sample.close()
    assert received == ["first", "second"]


def test_monitor_channel_has_one_listener_until_its_last_leaves(scheduler: ManualScheduler) -> None:
    feeder, _, broker = feeder_at(scheduler)
    records = broker._records  # type: ignore[attr-defined]
    with watching(feeder, "orders"):
        with watching(feeder, "orders"):
            assert len(records["orders"].audience.listeners) == 1, "one listener for all monitors"
            assert feeder.samples["orders"].users == 2
        until(lambda: feeder.samples["orders"].users == 1, "one monitor to have left")
        assert len(records["orders"].audience.listeners) == 1
    until(lambda: not feeder.samples, "the sample to be closed")
    until(lambda: not records["orders"].audience.listeners, "the listener to have left")


def test_monitor_event_flood_is_batched_and_large_event_truncated(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse, broker = feeder_at()
    sample = ChannelSample("orders", broker, scheduler)
    received: list[Event] = []
    monkeypatch.setattr(MonitorClients, "send_json", lambda _list, name, data: received.append(Event(data, event=name)))
    sample.open()
    ids = [sse.publish("orders", number) for number in range(EVENTS_SHOWN + 150)]
    sse.publish("orders", "€" * 10_000)
    assert len(scheduler.live_timers()) == 1
    scheduler.pass_time(1)
    scheduler.run_jobs()
    sample.close()
    kept, events = [event.data for event in received]
    assert kept == {"channel": "orders", "events": []}
    assert events["skipped"] == 151
    assert [event["id"] for event in events["events"][:-1]] == ids[-EVENTS_SHOWN + 1 :]
    large = events["events"][-1]
    assert large["is_cut"]
    assert large["size"] > 30_000
    assert BYTES_SHOWN / 4 < len(large["data"]) < BYTES_SHOWN
    assert scheduler.live_timers() == []


def shown(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch, *payloads: bytes | Event) -> list[Any]:
    """Return what a sample shows of these payloads, written to the broker as they are."""
    received: list[Any] = []
    monkeypatch.setattr(
        MonitorClients, "send_json", lambda _list, name, data: received.append(data) if name == "events" else None
    )
    sample = ChannelSample("orders", MemoryBroker(), scheduler)
    sample.open()
    for offset, each in enumerate(payloads, 1):
        frame = Frame(each, "message") if isinstance(each, bytes) else make_frame(each, json.dumps, 100_000)
        sample.arrived([with_id(frame, Position("epoch", offset), 0.0)])
    scheduler.pass_time(1)
    scheduler.run_jobs()
    sample.close()
    [only] = received
    assert only["skipped"] == 0
    events: list[Any] = only["events"]
    assert [event["id"] for event in events] == [f"epoch-{offset}" for offset in range(1, len(payloads) + 1)]
    return events


@pytest.mark.parametrize(
    ("foreign", "text"),
    [
        (b"data: one\n\ndata: two\n\n", "one"),
        (b"data: one\n\n\n\nevent: x\ndata\n\n", "one"),
        (b"nothing: of this\n\n", ""),
        (b"\xff\0\r\n", ""),
        (b"data: cut", "cut"),
        (b"", ""),
    ],
)
def test_monitor_foreign_payload_in_broker_hides_no_other_event(
    foreign: bytes, text: str, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = shown(scheduler, monkeypatch, Event("before"), foreign, Event("after"))
    assert [event["data"] for event in events] == ["before", text, "after"]


@pytest.mark.parametrize("more", range(4))
@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_monitor_large_event_is_truncated_between_characters(
    character: str, more: int, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = shown(scheduler, monkeypatch, Event("x" * more + character * 5000))
    assert event["is_cut"]
    assert set(event["data"]) <= {"x", character}
    assert BYTES_SHOWN - 30 < len(event["data"].encode()) <= BYTES_SHOWN


def test_monitor_event_with_data_beyond_limit_is_shown_truncated(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = shown(scheduler, monkeypatch, Event("hello", event="greeting", comment="c" * BYTES_SHOWN))
    assert (event["event"], event["data"], event["is_cut"]) == ("greeting", "", True)
