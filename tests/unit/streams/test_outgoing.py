"""The order in which a writer is given what was sent, and when it is woken."""

from __future__ import annotations

from flask_sse_emitters.testing import decode
from tests.unit.doubles.clock import Make
from tests.unit.doubles.writer import FakeWriter


def test_emitter_events_sent_before_the_client_came_are_delivered_first(make: Make) -> None:
    emitter = make()
    for number in range(3):
        emitter.send(number)
    assert emitter.pending == 3
    writer = FakeWriter(emitter)
    emitter.send("late")
    assert [event.data for event in decode(b"".join(writer.take_all()))] == ["0", "1", "2", "late"]
    assert emitter.pending == 0


def test_emitter_wakes_an_idle_writer_once(make: Make) -> None:
    """The writer is idle after it took nothing; one wake serves all that is sent until it takes."""
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
    emitter.complete()
    assert writer.wakes == 2
    assert writer.take() is None


def test_emitter_large_backlog_leaves_in_several_writes(make: Make) -> None:
    emitter = make()
    payload = "x" * 20_000
    for _ in range(10):
        emitter.send(payload)
    taken = FakeWriter(emitter).take_all()
    assert [len(decode(chunk)) for chunk in taken] == [3, 3, 3, 1]
