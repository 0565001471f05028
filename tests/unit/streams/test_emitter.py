"""What an emitter takes and gives to its writer, its arguments, its repr, and its JSON."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE, CloseReason, EmitterClosed, Event, InvalidEvent, SseEmitter, SseEmitters
from flask_sse_emitters.testing import decode
from tests.unit.doubles.clock import Make, ManualScheduler, emitter_at
from tests.unit.doubles.writer import FakeWriter


def test_emitter_sends_events_builders_and_plain_data(make: Make) -> None:
    emitter = make()
    builder = SseEmitter.event().name("connect").data("connected!")
    for event in (Event("a", id="1"), builder, builder, "text", {"a": 1}, 0, ""):
        emitter.send(event)
    wire = FakeWriter(emitter).take()
    assert wire == (
        b"id: 1\ndata: a\n\n"
        b"event: connect\ndata: connected!\n\n"
        b"event: connect\ndata: connected!\n\n"
        b'data: text\n\ndata: {"a": 1}\n\ndata: 0\n\ndata: \n\n'
    )


@pytest.mark.parametrize("event", [b"bytes", {1, 2}, "\ud800", object()])
def test_emitter_invalid_event_is_rejected_and_the_stream_works_on(event: Any, make: Make) -> None:
    emitter = make()
    writer = FakeWriter(emitter)
    with pytest.raises(InvalidEvent):
        emitter.send(event)
    with pytest.raises(InvalidEvent):
        emitter.try_send(event)
    emitter.send("fine")
    assert writer.take() == b"data: fine\n\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": -1}, "timeout must be seconds as a number or a timedelta, 0 for never, not -1"),
        ({"timeout": "60"}, "timeout must be seconds"),
        ({"timeout": True}, "timeout must be seconds"),
        ({"timeout": float("nan")}, "timeout must be seconds"),
        ({"timeout": float("inf")}, "timeout must be seconds"),
        ({"timeout": 10**400}, "timeout must be seconds"),
        ({"timeout": timedelta(seconds=-1)}, "timeout must be seconds"),
        ({"heartbeat": -0.5}, "heartbeat must be seconds"),
        ({"max_pending": 0}, "max_pending must be an int, 1 or more, not 0"),
        ({"max_pending": 1.5}, "max_pending must be an int"),
        ({"max_pending_bytes": True}, "max_pending_bytes must be an int"),
        ({"overflow": "drop"}, 'overflow must be "close", "drop_oldest" or "coalesce", not \'drop\''),
        ({"overflow": ["close"]}, "overflow must be"),
    ],
)
def test_emitter_argument_that_is_wrong_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SseEmitter(**arguments)


def test_emitter_json_is_made_by_its_app_or_the_senders(scheduler: ManualScheduler) -> None:
    """An emitter made outside an app uses the app of the context in which it sends."""
    app = Flask(__name__)
    SSE(app)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    outside = emitter_at(scheduler)
    with app.app_context():
        inside = emitter_at(scheduler)
        outside.send(["é"])
    inside.send(["é"])
    emitters = SseEmitters()
    for emitter in (outside, inside):
        emitters.add(emitter)
    emitters.send(["é"])  # by the app of one of them
    for emitter in (inside, outside):
        assert FakeWriter(emitter).take() == 2 * 'data: ["é"]\n\n'.encode()


def test_emitter_repr_shows_its_state(make: Make) -> None:
    emitter = make()
    emitter.send(1)
    assert "open, 1 pending" in repr(emitter)
    emitter.complete()
    assert "COMPLETED, 1 pending" in repr(emitter)


def test_emitter_closed_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(EmitterClosed(CloseReason.TIMEOUT)))
    assert (error.reason, error.error) == (CloseReason.TIMEOUT, None)


def test_emitter_wakes_an_idle_writer_once(make: Make, scheduler: ManualScheduler) -> None:
    """The writer is idle after it took nothing; one wake serves all that is sent until it takes.

    It brings the first event where nothing was written right before: else that goes with what follows.
    """
    emitter = make()
    writer = FakeWriter(emitter)
    emitter.send("before it took")
    assert writer.wakes == 0
    assert writer.take()
    assert writer.take() == b""
    emitter.send("a")
    emitter.send("b")
    assert writer.wakes == 1
    assert writer.take() == b"data: a\n\ndata: b\n\n"
    assert writer.take() == b""
    scheduler.pass_time(1)
    emitter.send("c")
    emitter.send("d")
    assert (writer.wakes, writer.got[-1]) == (2, b"data: c\n\n")
    assert writer.take() == b"data: d\n\n"
    assert writer.take() == b""
    emitter.complete()
    assert writer.wakes == 3
    assert writer.take() is None


def test_emitter_large_backlog_leaves_in_several_writes(make: Make) -> None:
    emitter = make()
    payload = "x" * 20_000
    for _ in range(10):
        emitter.send(payload)
    taken = FakeWriter(emitter).take_all()
    assert [len(decode(chunk)) for chunk in taken] == [3, 3, 3, 1]
