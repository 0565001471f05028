"""What one emitter of a list gets: catching up with its events, joining and leaving amid them."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters import CloseReason, SseEmitter, SseEmitters
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.stream import Stream
from tests.support.waiting import until
from tests.unit.broadcast.gate import held_up
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.writer import FakeWriter, texts_of


def test_list_events_come_before_later_calls_on_one_of_its_emitters() -> None:
    """Its send, end, removal and ``pending`` come after all events that were sent to the list before."""
    emitters = SseEmitters()
    sent_to, completed, failed, removed, looked_at = others = [SseEmitter() for _ in range(5)]
    gate = held_up(emitters, *others)
    emitters.send("to all")
    sent_to.send("to one")
    completed.complete()
    failed.complete_with_error(ValueError())
    emitters.remove(removed)
    emitters.send("to those who stayed")
    assert looked_at.pending == 3
    assert texts_of(sent_to) == ["before", "to all", "to one"]
    for emitter in (completed, failed, removed):
        assert texts_of(emitter) == ["before", "to all"]
    gate.open()
    assert texts_of(sent_to) == ["to those who stayed"], "what it had caught up with does not come again"
    assert texts_of(looked_at) == ["before", "to all", "to those who stayed"]
    assert texts_of(removed) == []


def test_list_events_sent_to_an_idle_client_do_not_overflow_it() -> None:
    """They are no backlog of an idle client, though the delivery pass has not reached it and its state is read."""
    emitters, other = SseEmitters(), SseEmitter(max_pending=2)
    writer = FakeWriter(other)
    assert writer.take() == b""
    gate = held_up(emitters, other)
    for number in range(10):
        emitters.send(str(number))
    assert "open, 11 pending" in repr(other)
    assert other.try_send("own")
    assert (writer.wakes, writer.got) == (1, [])
    assert other.try_send("another")
    assert not other.try_send("one too many")
    gate.open()


def test_list_client_that_catches_up_beyond_its_bound_overflows() -> None:
    emitters, other = SseEmitters(), SseEmitter(max_pending=2)
    gate = held_up(emitters, other)
    emitters.send("second")
    emitters.send("third")
    assert not other.try_send("fourth")
    assert other.close_reason is CloseReason.OVERFLOW
    gate.open()


def test_list_client_that_joins_during_sends_gets_no_hole_in_the_events() -> None:
    """The test sends between the steps of ``add``: the client gets all, or the later events alone."""
    emitters, emitter = SseEmitters(), SseEmitter()
    gate = held_up(emitters)
    members = emitters._delivery.members

    class Members(type(members)):  # type: ignore[misc]
        __slots__ = ()

        def add(self, element: Any) -> None:
            emitters.send("one")
            emitter.try_send("own")
            super().add(element)
            emitters.send("two")

    members.__class__ = Members
    emitters.add(emitter)
    emitters.send("three")
    gate.open()
    assert texts_of(emitter) in (["own", "two", "three"], ["own", "three"])


def test_list_complete_under_way_ends_a_client_that_catches_up() -> None:
    emitters, elsewhere, other = SseEmitters(), SseEmitters(), SseEmitter()
    gate = held_up(emitters, other)
    other_gate = held_up(elsewhere, other)
    emitters.complete()
    emitters.send("too late")
    assert not other.try_send("too late")
    assert texts_of(other) == ["before", "before"], "of both lists"
    gate.let.set()
    other_gate.open()
    gate.open()
    assert texts_of(other) == []
    assert other.close_reason is CloseReason.COMPLETED


def test_list_remove_still_delivers_what_was_sent_before_it_took_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``send`` has counted the client. More is sent before the delivery pass reaches it."""
    emitters, leaves, stays = SseEmitters(), SseEmitter(), SseEmitter()
    gate = held_up(emitters, leaves, stays)
    original, reached = Stream.leave, []

    def leave(stream: Stream, member: Any) -> None:
        reached.append(emitters.send("1"))
        original(stream, member)

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "leave", leave)
        emitters.remove(leaves)
    reached.append(emitters.send("2"))
    gate.open()
    assert reached == [3, 2]
    assert texts_of(leaves) == ["before", "1"]
    assert texts_of(stays) == texts_of(gate) == ["before", "1", "2"]


def test_list_write_before_its_complete_has_the_full_write_timeout(background: ManualScheduler) -> None:
    """The timeout starts at what the list gave to its idle client, and not at what the client took before."""
    emitters = SseEmitters()
    emitter = emitters.add(emitter_at(background, timeout=0, heartbeat=0))
    writer = FakeWriter(emitter)
    assert writer.take() == b""
    background.pass_time(29)
    emitters.send("x")
    emitters.complete()
    background.pass_time(29)
    assert (writer.texts(), writer.cuts) == (["x"], 0)
    background.pass_time(5)
    assert writer.cuts == 1


def test_heartbeat_is_left_out_after_a_direct_write_of_a_list(background: ManualScheduler) -> None:
    emitters = SseEmitters()
    emitter = emitters.add(emitter_at(background, timeout=0, heartbeat=10))
    writer = FakeWriter(emitter, direct=True)
    assert writer.take() == b""
    for _ in range(10):
        emitters.send("x")
        background.pass_time(5)
    assert (writer.texts(), writer.beats) == (["x"] * 10, 0)
    background.pass_time(20)
    assert writer.beats in (2, 3)
    assert writer.wakes == 0, "it need not be woken for that"


def test_list_idle_client_that_joins_amid_a_batch_does_not_overflow() -> None:
    """Its bounds do not apply, as for the clients that were there for all of the batch."""
    emitters, first = SseEmitters(), SseEmitter()
    gate = held_up(emitters, first)
    emitters.send("1")
    comes = emitters.add(SseEmitter(max_pending=2))
    writer = FakeWriter(comes)
    assert writer.take() == b""
    for number in range(2, 7):
        emitters.send(str(number))
    gate.open()
    assert writer.texts() == ["2", "3", "4", "5", "6"]
    assert (writer.wakes, len(writer.got)) == (1, 1), "as one batch"
    assert (comes.is_open, comes.dropped) == (True, 0)


@pytest.mark.parametrize("direct", [True, False, None], ids=["handed off", "by a server", "without a writer"])
def test_list_events_and_others_are_counted_for_a_stream_but_no_ends(direct: bool | None) -> None:
    """Whichever way they take: at once, from the queue, by themselves, before it leaves one of its lists."""
    emitters, others, emitter = SseEmitters(), SseEmitters(), SseEmitter()
    emitters.send("before it came")
    for each in (emitters, others):
        each.add(emitter)
    if direct is not None:
        FakeWriter(emitter, direct=direct).take()
    for number in range(3):
        emitters.send(str(number))
    others.send("from another list")
    others.remove(emitter)
    others.send("to those who stayed")
    emitter.send("its own")
    assert stream_of(emitter).outgoing.given_events == 5
    emitters.complete()
    until(lambda: emitter.close_reason is CloseReason.COMPLETED, "the end, which comes on another thread if handed off")
    assert stream_of(emitter).outgoing.given_events == 5
