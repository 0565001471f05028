"""Publishing: what ``publish`` takes and rejects, and whom it reaches with which id."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import pytest
from datastar_py import ServerSentEventGenerator as Datastar

from flask_sse_emitters import Event, InvalidEvent, Publisher, SseEmitter, SseEmitters
from flask_sse_emitters.testing import published
from tests.support.board import Board, gap_of, texts


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "coalesce"])
@pytest.mark.parametrize("channels", [1, 8])
def test_publish_event_of_the_largest_size_reaches_live_clients(overflow: str, channels: int) -> None:
    """Its id is not counted: as much may be pending as one event may have."""
    board = Board(SSE_OVERFLOW=overflow)
    names = [f"c{number}" for number in range(channels)]
    largest = "x" * (1_048_576 - len("data: ") - len("\n\n"))
    with board.open(*names) as stream:
        assert stream.ready() == []
        for _ in range(2):
            board.publish(names[-1], largest)
            assert texts(stream.ready()) == [largest]
        board.publish(names[-1], "more")
        assert texts(stream.ready()) == ["more"]
        with pytest.raises(InvalidEvent, match="SSE_MAX_EVENT_BYTES"):
            board.publish(names[-1], largest + "x")


def test_publish_reaches_the_clients_of_its_channel_with_id_name_and_data(board: Board) -> None:
    with board.open("orders") as stream, board.open("other") as other:
        event_id = board.sse.publish("orders", {"id": 7}, event="created", retry=100)
        assert stream.ready() == [Event('{"id": 7}', event="created", id=event_id)]
        assert other.ready() == []


def test_publish_takes_an_event_that_datastar_py_has_encoded(board: Board) -> None:
    """As it is, and never as the data of another."""
    event = Datastar.patch_elements("<p>", selector="#x")
    with board.open("a") as stream:
        event_id = board.sse.publish("a", event)
        data = "selector #x\nelements <p>"
        assert stream.ready() == [Event(data, event="datastar-patch-elements", id=event_id)]
    emitter = SseEmitter()
    for give in (partial(board.sse.publish, "a"), emitter.send, SseEmitters().send):
        with pytest.raises(InvalidEvent, match="as it is"):
            give(event, event="named")


def test_publish_takes_a_whole_event_or_builder(board: Board) -> None:
    with board.open("a") as stream:
        board.sse.publish("a", Event({"x": 1}, event="named"))
        board.sse.publish("a", SseEmitter.event().name("built").data("y"))
        assert [(event.event, event.data) for event in stream.ready()] == [("named", '{"x": 1}'), ("built", "y")]


@pytest.mark.parametrize(
    ("data", "options", "wrong"),
    [
        (Event("x", id=1), {}, "give no id, event or retry with it"),
        (Event("x"), {"event": "other"}, "give no id, event or retry with it"),
        (SseEmitter.event().data("x"), {"retry": 1}, "give no id, event or retry with it"),
        ("x", {"event": "a\nb"}, "event must not contain"),
        ("x", {"key": "\ud800"}, "key holds a lone surrogate"),
        ({1, 2}, {}, "data of type set cannot be made JSON"),
        ("x" * 2_000_000, {}, "SSE_MAX_EVENT_BYTES"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_publish_invalid_event_is_rejected_and_wastes_no_id(
    board: Board, data: Any, options: dict[str, Any], wrong: str
) -> None:
    with board.open("a") as stream:
        with pytest.raises(InvalidEvent, match=wrong):
            board.sse.publish("a", data, **options)
        [event_id] = board.publish("a", "next")
        assert [event.id for event in stream.ready()] == [event_id]
        assert event_id.endswith("-1"), "no id is wasted"


@pytest.mark.parametrize("whole", [Event("x", event="gap"), SseEmitter.event().name("gap").data("x")])
def test_publish_event_named_gap_is_rejected(board: Board, whole: Any) -> None:
    channel = board.sse.channel("a")
    with published(board.sse, "a") as events:
        for call in (channel.publish, partial(board.sse.publish, "a"), partial(board.sse.publish_to, "ann")):
            with pytest.raises(InvalidEvent, match="'gap' is kept for the event that tells clients that they have"):
                call("x", event="gap")
            with pytest.raises(InvalidEvent, match="take another one"):
                call(whole)
        for name in ("open", "error", "gaps", "Gap"):
            board.sse.publish("a", "x", event=name)
    assert len(events) == 4
    assert gap_of(board.replayed("a", last="long-ago"))["requested"] == "long-ago"


def test_publish_data_nan_is_rejected_unless_the_provider_writes_null(board: Board) -> None:
    with board.open("a") as stream:
        with pytest.raises(InvalidEvent, match="data holds NaN, which is not valid JSON"):
            board.sse.publish("a", {"mean": math.nan})
        board.app.json.dumps = lambda data, **_: json.dumps(data).replace("NaN", "null")  # type: ignore[method-assign]
        board.sse.publish("a", {"mean": math.nan})
        assert texts(stream.ready()) == ['{"mean": null}']


def test_publish_retry_with_the_same_key_is_published_once(board: Board) -> None:
    with board.open("a") as stream:
        first = board.sse.publish("a", "x", key="order-7")
        assert board.sse.publish("a", "x", key="order-7") == first
        assert board.sse.channel("a").publish("y", key="order-8") != first
        assert texts(stream.ready()) == ["x", "y"]


def test_send_of_an_event_that_is_too_large_is_rejected() -> None:
    app = Board(SSE_MAX_EVENT_BYTES=100).app
    fits, too_large = "x" * (100 - len("data: \n\n")), "é" * 47
    with app.app_context():
        emitters = SseEmitters()
        emitter, alone = emitters.add(SseEmitter()), SseEmitter()
        for send in (emitters.send, alone.send, alone.try_send):
            send(fits)
            for event in (fits + "x", too_large, SseEmitter.event().name("n" * 50).data("x" * 50)):
                with pytest.raises(InvalidEvent, match="SSE_MAX_EVENT_BYTES allows 100"):
                    send(event)
        assert [emitter.pending, alone.pending] == [1, 2]
        assert emitter.is_open
        assert alone.is_open


def test_publisher_with_memory_broker_is_rejected() -> None:
    with pytest.raises(ValueError, match="reaches this process alone"):
        Publisher("memory://")
