"""The delivery passes of lists: batches, several senders, the background, back pressure, fork and finalizers."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters import CopyOnWriteList, SseEmitter, SseEmitters
from flask_sse_emitters.broadcast import batch
from flask_sse_emitters.broadcast.batch import Batch
from flask_sse_emitters.broadcast.delivery import CLIENTS_PER_LOOK, HIGH_WATER_BYTES, HIGH_WATER_EVENTS, INLINE_CLIENTS
from flask_sse_emitters.broadcast.member import Member
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.writers.socket_writer import SocketWriter
from tests.support.waiting import PATIENCE, until
from tests.unit.broadcast.gate import await_pass, held_up
from tests.unit.doubles.clock import ManualScheduler
from tests.unit.doubles.writer import texts_of


def test_list_second_sender_neither_overtakes_nor_waits() -> None:
    """While one thread delivers, others leave their events to it, and return."""
    emitters = SseEmitters()
    first, last = emitters.add(SseEmitter()), SseEmitter()
    gate = held_up(emitters, last, event="a")
    assert emitters.send("b") == 3
    newcomer = emitters.add(SseEmitter())
    emitters.send("c")
    emitters.complete()
    assert first.is_open, "the end does not overtake what was sent before it"
    gate.open()
    assert len(emitters) == 0
    assert [texts_of(emitter) for emitter in (first, gate, last)] == [["a", "b", "c"]] * 3
    assert texts_of(newcomer) == ["c"], "not what was sent before it came"


def _hand_off_to_gone_client(emitter: SseEmitter) -> None:
    """Hand an emitter off to a socket whose client has left unnoticed."""
    server, client = socket.socketpair()
    writer = SocketWriter(stream_of(emitter), server, True, SOCKET_MONITOR.watch(server.fileno(), MagicMock()), ())
    stream_of(emitter).begin(writer)
    stream_of(emitter).take_over(writer)
    writer.begin()
    client.close()


def test_list_clients_found_gone_are_freed_without_the_garbage_collector() -> None:
    """Where hundreds leave in a second, the garbage collector would have to look at everything for them each time."""
    emitters = SseEmitters()
    gone = [weakref.ref(emitters.add(SseEmitter())) for _ in range(2 * CLIENTS_PER_LOOK)]
    for emitter in emitters:
        _hand_off_to_gone_client(emitter)
    del emitter
    gc.collect()
    gc.disable()
    try:
        emitters.send("x")
        until(lambda: not any(each() for each in gone), "all to be freed")
    finally:
        gc.enable()


def test_list_sender_delivers_to_the_first_clients_and_leaves_the_rest(
    background: ManualScheduler, delivered: list[Batch]
) -> None:
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter()) for _ in range(1_000)]
    assert emitters.send("x") == 1_000
    assert sum(len(stream_of(member).outgoing.backlog) for member in members) == INLINE_CLIENTS
    assert members[-1].pending == 1, "pending shows no difference"
    background.run_calls()
    assert all(texts_of(member) == ["x"] for member in members)
    assert len({id(batch) for batch in delivered}) == 1, "encoded once for all"


def test_list_sender_does_not_deliver_for_others_without_end(
    background: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_BYTES", 1)  # a delivery for each event
    emitters = SseEmitters()
    gate = held_up(emitters, event=0)
    for number in range(1, 500):
        emitters.send(number)
    gate.let_through()
    assert len(stream_of(gate).outgoing.backlog) == INLINE_CLIENTS
    background.run_calls()
    assert texts_of(gate) == [str(number) for number in range(500)]


def test_list_sender_that_is_interrupted_leaves_the_rest_to_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts = [KeyboardInterrupt]
    original = Member.deliver

    def deliver(member: Member, batch: Batch, **given: bool) -> None:
        while member.emitter is interrupted and interrupts:
            raise interrupts.pop()
        original(member, batch, **given)

    emitters = SseEmitters()
    before = emitters.add(SseEmitter())
    interrupted = emitters.add(SseEmitter())
    monkeypatch.setattr(Member, "deliver", deliver)
    after = emitters.add(SseEmitter())
    with pytest.raises(KeyboardInterrupt):
        emitters.send("x")
    await_pass(emitters)
    assert texts_of(before) == texts_of(after) == ["x"]


def test_list_back_pressure_pauses_senders_beyond_the_high_water(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("flask_sse_emitters.broadcast.delivery.pause", naps.append)
    emitters = SseEmitters()
    gate = held_up(emitters)
    while not naps:
        emitters.send("x")
    assert len(emitters._delivery._outbox) > HIGH_WATER_EVENTS
    gate.open()

    naps.clear()
    gate = held_up(emitters)
    large = "x" * 1_000_000
    for _ in range(HIGH_WATER_BYTES // len(large) + 1):
        emitters.send(large)
    assert [round(nap * 1000) for nap in naps] == [1]
    gate.open()
    naps.clear()
    emitters.send("small")
    await_pass(emitters)
    assert (naps, emitters._delivery._bytes) == ([], 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_list_after_fork_belongs_to_the_child_alone(in_child: Callable[[Callable[[], object]], str]) -> None:
    """Also where another thread of the parent was delivering events at the time."""
    emitters = SseEmitters()
    gate = held_up(emitters, event="of the parent")

    def use() -> tuple[int, list[str]]:
        emitter = emitters.add(SseEmitter())
        return emitters.send("of the child"), texts_of(emitter)

    assert in_child(use) == "(1, ['of the child'])"
    gate.open()
    assert texts_of(gate) == ["of the parent"]


def test_list_send_from_a_finalizer_during_a_send_does_not_deadlock() -> None:
    """The garbage collector runs finalizers wherever memory is allocated, also under a lock."""
    emitters, finalizers = SseEmitters(), ["one"]

    class Members(CopyOnWriteList[Any]):
        def snapshot(self) -> tuple[Any, ...]:
            if emitters._delivery.lock._is_owned() and finalizers:  # type: ignore[attr-defined]
                emitters.send(finalizers.pop())
            return super().snapshot()

    emitters._delivery.members = Members()
    emitter = emitters.add(SseEmitter(0))

    sender = threading.Thread(target=emitters.send, args=("sent",), daemon=True)
    sender.start()
    sender.join(PATIENCE)
    assert not sender.is_alive(), "no deadlock"
    assert (emitter.pending, finalizers) == (2, [])


def test_list_delivers_what_waits_in_one_pass_though_clients_come_and_go(delivered: list[Batch]) -> None:
    """Else a list that is behind, and whose clients come and go, could not batch what waits, and would stay behind."""
    emitters, stays, ends, large = SseEmitters(), SseEmitter(), SseEmitter(), "x" * 50_000
    gate = held_up(emitters, stays, ends)
    emitters.send("1")
    comes = emitters.add(SseEmitter())
    emitters.send("2")
    emitters.send("3")
    ends.complete()
    for text in ("4", large, large):
        emitters.send(text)
    gate.open()
    sizes = [len(batch.frames) for batch in delivered]
    assert {*sizes} == {1, 5}, "and no more in one batch than makes a good write"
    assert sizes.count(5) == 3, "to each of those that stay"
    assert texts_of(stays) == texts_of(gate) == ["before", "1", "2", "3", "4", large, large]
    assert texts_of(comes) == ["2", "3", "4", large, large]
    assert texts_of(ends) == ["before", "1", "2", "3"]
