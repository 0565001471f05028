"""What a list delivers at once: each event encoded once, and what waits as one batch."""

from __future__ import annotations

from flask_sse_emitters import SseEmitter, SseEmitters
from flask_sse_emitters.broadcast.batch import Batch
from tests.unit.broadcast.gate import held_up
from tests.unit.doubles.writer import texts_of


def test_list_event_is_encoded_once_for_all(delivered: list[Batch]) -> None:
    emitters = SseEmitters()
    for _ in range(3):
        emitters.add(SseEmitter())
    emitters.send({"a": 1})
    assert len(delivered) == 3
    assert len({id(batch) for batch in delivered}) == 1


def test_list_delivers_what_waits_in_one_pass(delivered: list[Batch]) -> None:
    emitters, other = SseEmitters(), SseEmitter(max_pending_bytes=10**9)
    gate = held_up(emitters, other)
    for number in range(20):
        emitters.send(str(number))
    for _ in range(3):
        emitters.send("x" * 50_000)
    gate.open()
    sizes = [len(batch.frames) for batch in delivered]
    assert [size for size in sizes if size > 1] == [21, 21], "and no more in one batch than makes a good write"
    assert len(texts_of(other)) == 24


def test_list_delivers_what_waits_in_one_pass_though_clients_come_and_go(delivered: list[Batch]) -> None:
    """Else a list that is behind, and whose clients come and go, could not batch what waits, and would stay behind."""
    emitters, stays, ends = SseEmitters(), SseEmitter(), SseEmitter()
    gate = held_up(emitters, stays, ends)
    emitters.send("1")
    comes = emitters.add(SseEmitter())
    emitters.send("2")
    emitters.send("3")
    ends.complete()
    emitters.send("4")
    gate.open()
    assert {len(batch.frames) for batch in delivered} == {1, 4}
    assert texts_of(stays) == texts_of(gate) == ["before", "1", "2", "3", "4"]
    assert texts_of(comes) == ["2", "3", "4"]
    assert texts_of(ends) == ["before", "1", "2", "3"]
