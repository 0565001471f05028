"""Lists of emitters."""

from __future__ import annotations

import gc
import os
import socket
import threading
import weakref
from datetime import datetime
from typing import Any
from weakref import WeakSet

import pytest
from flask import Flask

from flask_sse_emitters import SSE, CloseReason, CopyOnWriteList, Event, InvalidEvent, SseEmitter, SseEmitters
from flask_sse_emitters.broadcast.batch import Batch
from flask_sse_emitters.broadcast.delivery import CLIENTS_PER_LOOK, HIGH_WATER_BYTES, HIGH_WATER_EVENTS, INLINE_CLIENTS
from flask_sse_emitters.broadcast.member import Member
from flask_sse_emitters.config import context
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.stream import Stream
from flask_sse_emitters.writers.socket_writer import SocketWriter
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.writer import FakeWriter, texts_of


def test_list_send_reaches_every_emitter_and_returns_their_count() -> None:
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter()) for _ in range(3)]
    assert emitters.send("a") == 3
    assert emitters.send(SseEmitter.event().name("n").data("b")) == 3
    assert [texts_of(member) for member in members] == [["a", "b"]] * 3


def test_list_event_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Batch] = []
    original = Member.deliver

    def deliver(member: Member, batch: Batch) -> None:
        batches.append(batch)
        original(member, batch)

    monkeypatch.setattr(Member, "deliver", deliver)
    emitters = SseEmitters()
    for _ in range(3):
        emitters.add(SseEmitter())
    emitters.send({"a": 1})
    assert len(batches) == 3
    assert len({id(batch) for batch in batches}) == 1


def test_list_holds_an_emitter_once_until_it_ends() -> None:
    emitters = SseEmitters()
    emitter = SseEmitter()
    assert emitters.add(emitter) is emitters.add(emitter) is emitter
    assert (len(emitters), emitter in emitters, list(emitters)) == (1, True, [emitter])
    emitter.complete()
    assert (len(emitters), emitter in emitters, list(emitters)) == (0, False, [])
    assert emitters.send("x") == 0


def test_list_ignores_an_emitter_that_has_ended() -> None:
    emitters = SseEmitters()
    emitter = SseEmitter()
    emitter.complete()
    assert emitters.add(emitter) is emitter
    assert len(emitters) == 0


def test_lists_can_share_an_emitter() -> None:
    lists = [SseEmitters() for _ in range(3)]
    emitter = SseEmitter()
    for emitters in lists:
        emitters.add(emitter)
        emitters.send("x")
    emitter.complete()
    assert [len(emitters) for emitters in lists] == [0, 0, 0]
    assert texts_of(emitter) == ["x", "x", "x"]


def test_list_remove_leaves_the_stream_open() -> None:
    emitters = SseEmitters()
    emitter = emitters.add(SseEmitter())
    emitters.remove(emitter)
    emitters.remove(emitter)
    assert emitter.is_open
    assert emitters.send("x") == 0


def test_list_emitters_can_be_chosen_by_attributes_of_the_app() -> None:
    emitters = SseEmitters()
    for user in ("ada", "grace", "ada"):
        emitter = emitters.add(SseEmitter())
        emitter.user = user  # type: ignore[attr-defined]
    reached = [emitter for emitter in emitters if emitter.user == "ada"]  # type: ignore[attr-defined]
    for emitter in reached:
        emitter.send("for ada only")
    assert [emitter.pending for emitter in emitters] == [1, 0, 1]


def test_list_add_rejects_what_is_no_emitter() -> None:
    with pytest.raises(TypeError, match=r"add\(\) takes an SseEmitter, not 'x'"):
        SseEmitters().add("x")  # type: ignore[type-var]


def test_list_invalid_event_reaches_no_client_and_the_list_works_on() -> None:
    emitters = SseEmitters()
    emitter = emitters.add(SseEmitter())
    with pytest.raises(InvalidEvent):
        emitters.send(b"bytes")
    emitters.send("fine")
    assert texts_of(emitter) == ["fine"]


def test_list_overflow_of_one_client_leaves_the_others_delivered() -> None:
    emitters = SseEmitters()
    slow, fast = emitters.add(SseEmitter(max_pending=1)), emitters.add(SseEmitter())
    emitters.send(1)
    assert emitters.send(2) == 2
    assert slow.close_reason is CloseReason.OVERFLOW
    assert list(emitters) == [fast]
    assert texts_of(fast) == ["1", "2"]


def test_list_complete_ends_all_after_what_was_sent_and_the_list_works_on() -> None:
    emitters = SseEmitters()
    emitter = emitters.add(SseEmitter())
    emitters.send("last words")
    emitters.complete()
    assert emitter.close_reason is CloseReason.COMPLETED
    assert texts_of(emitter) == ["last words"]
    later = emitters.add(SseEmitter())
    emitters.send("more")
    assert texts_of(later) == ["more"]


def test_list_json_is_made_by_the_emitters_app_outside_a_context(scheduler: ManualScheduler) -> None:
    app = Flask(__name__)
    SSE(app)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    emitters = SseEmitters()
    emitters.add(emitter_at(scheduler))
    with app.app_context():
        emitter = emitters.add(emitter_at(scheduler))
    emitters.send(["é"])
    assert texts_of(emitter) == ['["é"]']


def test_list_json_is_made_by_the_only_app_also_while_the_list_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_states", WeakSet())
    app = Flask(__name__)
    SSE(app)
    now = datetime(2026, 1, 1)
    assert SseEmitters().send({"at": now}) == 0
    SseEmitter().send({"at": now})
    other = Flask(__name__)
    SSE(other)
    with pytest.raises(InvalidEvent):
        SseEmitters().send({"at": now})


class _Gate(SseEmitter):
    """Holds up the thread that delivers to it, until the test lets it through."""

    __slots__ = ("let", "reached")

    def __init__(self) -> None:
        self.reached, self.let = threading.Event(), threading.Event()
        super().__init__()

    def stop(self) -> None:
        self.reached.set()
        assert self.let.wait(PATIENCE)


@pytest.fixture(autouse=True)
def gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each delivery to a gate wait there."""
    original = Member.deliver

    def deliver(member: Member, batch: Batch) -> None:
        if isinstance(member.emitter, _Gate):
            member.emitter.stop()
        original(member, batch)

    monkeypatch.setattr(Member, "deliver", deliver)


def test_list_second_sender_neither_overtakes_nor_waits() -> None:
    """While one thread delivers, others leave their events to it, and return."""
    emitters = SseEmitters()
    first, gate, last = emitters.add(SseEmitter()), _Gate(), SseEmitter()
    emitters.add(gate)
    emitters.add(last)
    sender = threading.Thread(target=emitters.send, args=("a",))
    sender.start()
    assert gate.reached.wait(PATIENCE)
    assert emitters.send("b") == 3
    newcomer = emitters.add(SseEmitter())
    emitters.send("c")
    emitters.complete()
    assert first.is_open, "the end does not overtake what was sent before it"
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: len(emitters) == 0, "the end of all")
    assert [texts_of(emitter) for emitter in (first, gate, last)] == [["a", "b", "c"]] * 3
    assert texts_of(newcomer) == ["c"], "not what was sent before it came"


def held_up(emitters: SseEmitters, *others: SseEmitter) -> tuple[_Gate, threading.Thread]:
    """Start a delivery pass of ``"before"`` that waits at the list's first emitter and has not reached the others."""
    gate = emitters.add(_Gate())
    for other in others:
        emitters.add(other)
    sender = threading.Thread(target=emitters.send, args=("before",))
    sender.start()
    assert gate.reached.wait(PATIENCE)
    return gate, sender


def test_list_events_come_before_later_calls_on_one_of_its_emitters() -> None:
    """Its send, end, removal and ``pending`` come after all events that were sent to the list before."""
    emitters = SseEmitters()
    sent_to, completed, failed, removed, looked_at = others = [SseEmitter() for _ in range(5)]
    gate, sender = held_up(emitters, *others)
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
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert texts_of(sent_to) == ["to those who stayed"], "what it had caught up with does not come again"
    assert texts_of(looked_at) == ["before", "to all", "to those who stayed"]
    assert texts_of(removed) == []


def test_list_events_sent_to_an_idle_client_do_not_overflow_it() -> None:
    """They are no backlog of an idle client, though the delivery pass has not reached it and its state is read."""
    emitters, other = SseEmitters(), SseEmitter(max_pending=2)
    writer = FakeWriter(other)
    assert writer.take() == b""
    gate, sender = held_up(emitters, other)
    for number in range(10):
        emitters.send(str(number))
    assert "open, 11 pending" in repr(other)
    assert other.try_send("own")
    assert (writer.wakes, writer.got) == (1, [])
    assert other.try_send("another")
    assert not other.try_send("one too many")
    gate.let.set()
    sender.join(PATIENCE)


def test_list_events_sent_after_its_complete_are_not_delivered() -> None:
    emitters, others, both = SseEmitters(), SseEmitters(), SseEmitter()
    gate, sender = held_up(emitters, both)
    other_gate, other_sender = held_up(others, both)
    emitters.complete()
    emitters.send("after the end")
    others.complete()
    assert not both.try_send("too late")
    assert texts_of(both) == ["before", "before"]
    for each in (gate, other_gate):
        each.let.set()
    for thread in (sender, other_sender):
        thread.join(PATIENCE)


def test_list_client_that_joins_during_sends_gets_no_hole_in_the_events() -> None:
    """The test sends between the steps of ``add``: the client gets all, or the later events alone."""
    emitters, emitter = SseEmitters(), SseEmitter()
    gate, sender = held_up(emitters)
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
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert texts_of(emitter) in (["own", "two", "three"], ["own", "three"])


def test_list_keeps_no_ended_emitter_alive() -> None:
    emitters = SseEmitters()
    gone = [weakref.ref(emitters.add(SseEmitter())) for _ in range(100)]
    emitters.send("x" * 1_000)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    for emitter in emitters:
        emitter.complete()
    del emitter
    gc.collect()
    until(lambda: gc.collect() is not None and not any(each() for each in gone), "all to be freed")
    assert emitters._delivery._batch.payload == b""


class _IgnoredWatch:
    """Watches a socket, and ignores what it reports."""

    def on_hang_up(self) -> None: ...

    def on_room(self) -> None: ...

    def on_fork(self) -> None: ...


def _hand_off_to_gone_client(emitter: SseEmitter) -> None:
    """Hand an emitter off to a socket whose client has left unnoticed."""
    server, client = socket.socketpair()
    writer = SocketWriter(stream_of(emitter), server, True, SOCKET_MONITOR.watch(server.fileno(), _IgnoredWatch()), ())
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


def test_list_complete_under_way_ends_a_client_that_catches_up() -> None:
    emitters, elsewhere, other = SseEmitters(), SseEmitters(), SseEmitter()
    gate, sender = held_up(emitters, other)
    other_gate, other_sender = held_up(elsewhere, other)
    emitters.complete()
    emitters.send("too late")
    assert not other.try_send("too late")
    assert texts_of(other) == ["before", "before"], "of both lists"
    for each in (gate, other_gate):
        each.let.set()
    for thread in (sender, other_sender):
        thread.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing and not elsewhere._delivery._is_passing, "the delivery passes")
    assert texts_of(other) == []
    assert other.close_reason is CloseReason.COMPLETED


def test_list_client_that_catches_up_beyond_its_bound_overflows() -> None:
    emitters, other = SseEmitters(), SseEmitter(max_pending=2)
    gate, sender = held_up(emitters, other)
    emitters.send("second")
    emitters.send("third")
    assert not other.try_send("fourth")
    assert other.close_reason is CloseReason.OVERFLOW
    gate.let.set()
    sender.join(PATIENCE)


def test_list_client_that_caught_up_amid_a_batch_gets_the_rest_once() -> None:
    emitters, other = SseEmitters(), SseEmitter()
    gate, sender = held_up(emitters, other)
    emitters.send("1")
    other.send("own")
    emitters.send("2")
    emitters.send("3")
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert texts_of(other) == ["before", "1", "own", "2", "3"]
    assert texts_of(gate) == ["before", "1", "2", "3"]


def test_list_delivers_what_waits_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    original = Member.deliver

    def deliver(member: Member, batch: Batch) -> None:
        batches.append(len(batch.frames))
        original(member, batch)

    emitters, other = SseEmitters(), SseEmitter(max_pending_bytes=10**9)
    gate, sender = held_up(emitters, other)
    for number in range(20):
        emitters.send(str(number))
    for _ in range(3):
        emitters.send("x" * 50_000)
    monkeypatch.setattr(Member, "deliver", deliver)
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert [count for count in batches if count > 1] == [21, 21], "and no more in one batch than makes a good write"
    assert len(texts_of(other)) == 24


def test_list_delivers_what_waits_in_one_pass_though_clients_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a list that is behind, and whose clients come and go, could not batch what waits, and would stay behind."""
    batches: list[int] = []
    original = Member.deliver

    def deliver(member: Member, batch: Batch) -> None:
        batches.append(len(batch.frames))
        original(member, batch)

    emitters, stays, ends = SseEmitters(), SseEmitter(), SseEmitter()
    gate, sender = held_up(emitters, stays, ends)
    emitters.send("1")
    comes = emitters.add(SseEmitter())
    emitters.send("2")
    emitters.send("3")
    ends.complete()
    emitters.send("4")
    monkeypatch.setattr(Member, "deliver", deliver)
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert {count for count in batches if count > 1} == {4}
    assert texts_of(stays) == texts_of(gate) == ["before", "1", "2", "3", "4"]
    assert texts_of(comes) == ["2", "3", "4"]
    assert texts_of(ends) == ["before", "1", "2", "3"]


class _Interlude:
    """A lock that, once the first delivery pass has ended, starts a second and holds it up before the first returns."""

    def __init__(self, emitters: SseEmitters, gate: _Gate) -> None:
        self._emitters, self._gate, self._lock = emitters, gate, emitters._delivery.lock
        self.sender: threading.Thread | None = None

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.__exit__(*exc_info)
        if self.sender is None and not self._emitters._delivery._is_passing:
            self._gate.let.clear()
            self._gate.reached.clear()
            self.sender = threading.Thread(target=self._emitters.send, args=("second",))
            self.sender.start()
            assert self._gate.reached.wait(PATIENCE)


def test_list_delivery_pass_that_has_ended_leaves_the_next_alone() -> None:
    emitters, gate = SseEmitters(), _Gate()
    members = [emitters.add(gate), *(emitters.add(SseEmitter()) for _ in range(2 * CLIENTS_PER_LOOK))]
    gate.let.set()
    interlude = emitters._delivery.lock = _Interlude(emitters, gate)
    emitters.send("first")
    gate.let.set()
    assert interlude.sender is not None
    interlude.sender.join(PATIENCE)
    until(
        lambda: not emitters._delivery._is_passing,
        "the rest, which the background delivers where the sender's slice of time is over",
    )
    assert all(texts_of(member) == ["first", "second"] for member in members)


def test_list_sender_delivers_to_the_first_clients_and_the_background_to_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "flask_sse_emitters.broadcast.delivery.monotonic", lambda: 0.0
    )  # its slice of time is not over before
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter()) for _ in range(1_000)]
    assert emitters.send("x") == 1_000
    assert all(len(stream_of(member).outgoing.backlog) for member in members[:INLINE_CLIENTS])
    assert members[-1].pending == 1, "pending shows no difference"
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert all(texts_of(member) == ["x"] for member in members)


def send_while_held_up(count: int) -> _Gate:
    """Send ``count`` events: the emitter returned holds up the sender of the first while the others are sent."""
    emitters, gate = SseEmitters(), _Gate()
    emitters.add(gate)
    sender = threading.Thread(target=emitters.send, args=(0,))
    sender.start()
    assert gate.reached.wait(PATIENCE)
    for number in range(1, count):
        emitters.send(number)
    gate.let.set()
    sender.join(PATIENCE)
    return gate


def test_list_sender_does_not_deliver_for_others_without_end() -> None:
    gate = send_while_held_up(500)
    until(lambda: len(stream_of(gate).outgoing.backlog) == 500, "the background to deliver the rest")
    assert texts_of(gate) == [str(number) for number in range(500)]


def test_list_sender_that_is_interrupted_leaves_the_rest_to_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts = [KeyboardInterrupt]
    original = Member.deliver

    def deliver(member: Member, batch: Batch) -> None:
        while member.emitter is interrupted and interrupts:
            raise interrupts.pop()
        original(member, batch)

    emitters = SseEmitters()
    before = emitters.add(SseEmitter())
    interrupted = emitters.add(SseEmitter())
    monkeypatch.setattr(Member, "deliver", deliver)
    after = emitters.add(SseEmitter())
    with pytest.raises(KeyboardInterrupt):
        emitters.send("x")
    until(lambda: not emitters._delivery._is_passing, "the rest")
    assert texts_of(before) == texts_of(after) == ["x"]


def test_list_remove_leaves_no_membership_with_the_emitter() -> None:
    emitters = SseEmitters()
    emitter = SseEmitter()
    for _ in range(100):
        emitters.add(emitter)
        emitters.remove(emitter)
    assert stream_of(emitter).outgoing.members == ()
    emitters.add(emitter)
    emitter.complete()
    assert len(emitters) == 0


def test_list_delivery_is_not_held_up_by_blocking_callbacks() -> None:
    release = threading.Event()
    for _ in range(16):
        blocking = SseEmitter()
        blocking.on_completion(lambda: release.wait(PATIENCE))
        blocking.complete()
    gate = send_while_held_up(200)
    until(lambda: len(stream_of(gate).outgoing.backlog) == 200, "the background to deliver the rest")
    release.set()


def test_list_back_pressure_pauses_senders_beyond_the_high_water_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("flask_sse_emitters.broadcast.delivery.pause", naps.append)
    emitters, gate = SseEmitters(), _Gate()
    emitters.add(gate)
    sender = threading.Thread(target=emitters.send, args=(0,))
    sender.start()
    assert gate.reached.wait(PATIENCE)
    while not naps:
        emitters.send("x")
    assert len(emitters._delivery._outbox) > HIGH_WATER_EVENTS
    gate.let.set()
    sender.join(PATIENCE)


def test_list_back_pressure_pauses_senders_beyond_the_high_water_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("flask_sse_emitters.broadcast.delivery.pause", naps.append)
    emitters, gate = SseEmitters(), _Gate()
    emitters.add(gate)
    sender = threading.Thread(target=emitters.send, args=(0,))
    sender.start()
    assert gate.reached.wait(PATIENCE)
    large = "x" * 1_000_000
    for _ in range(HIGH_WATER_BYTES // len(large) + 1):
        emitters.send(large)
    assert [round(nap * 1000) for nap in naps] == [1]
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery")
    naps.clear()
    emitters.send("small")
    until(lambda: not emitters._delivery._is_passing, "the delivery")
    assert (naps, emitters._delivery._bytes) == ([], 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_list_after_fork_belongs_to_the_child_alone() -> None:
    """Also where another thread of the parent was delivering events at the time."""
    emitters, gate = SseEmitters(), _Gate()
    emitters.add(gate)
    sender = threading.Thread(target=emitters.send, args=("of the parent",))
    sender.start()
    assert gate.reached.wait(PATIENCE)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        emitter = emitters.add(SseEmitter())
        reached = emitters.send("of the child")
        os.write(write_end, f"{reached} {texts_of(emitter)}".encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as answer:
        assert answer.read() == "1 ['of the child']"
    os.waitpid(child, 0)
    gate.let.set()
    sender.join(PATIENCE)
    assert texts_of(gate) == ["of the parent"]


def test_list_repr_shows_the_number_of_emitters() -> None:
    emitters = SseEmitters()
    emitters.add(SseEmitter())
    assert repr(emitters) == "<SseEmitters of 1>"
    assert Event("x") not in emitters


def test_list_send_from_a_finalizer_during_a_send_does_not_deadlock() -> None:
    """The garbage collector runs finalizers wherever memory is allocated, also under a lock."""
    emitters, sent, finalizers = SseEmitters(), threading.Event(), ["one"]

    class Members(CopyOnWriteList[Any]):
        def snapshot(self) -> tuple[Any, ...]:
            if emitters._delivery.lock._is_owned() and finalizers:  # type: ignore[attr-defined]
                emitters.send(finalizers.pop())
            return super().snapshot()

    emitters._delivery.members = Members()
    emitter = emitters.add(SseEmitter(0))

    def send() -> None:
        emitters.send("sent")
        sent.set()

    threading.Thread(target=send, daemon=True).start()
    assert sent.wait(PATIENCE), "no deadlock"
    assert (emitter.pending, finalizers) == (2, [])


def test_list_remove_still_delivers_what_was_sent_before_it_took_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``send`` has counted the client. More is sent before the delivery pass reaches it."""
    emitters, leaves, stays = SseEmitters(), SseEmitter(), SseEmitter()
    gate, sender = held_up(emitters, leaves, stays)
    original, reached = Stream.leave, []

    def leave(stream: Stream, member: Any) -> None:
        reached.append(emitters.send("1"))
        original(stream, member)

    monkeypatch.setattr(Stream, "leave", leave)
    emitters.remove(leaves)
    monkeypatch.undo()
    reached.append(emitters.send("2"))
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert reached == [3, 2]
    assert texts_of(leaves) == ["before", "1"]
    assert texts_of(stays) == texts_of(gate) == ["before", "1", "2"]


def test_list_idle_client_that_joins_amid_a_batch_does_not_overflow() -> None:
    """Its bounds do not apply, as for the clients that were there for all of the batch."""
    emitters, first = SseEmitters(), SseEmitter()
    gate, sender = held_up(emitters, first)
    emitters.send("1")
    comes = emitters.add(SseEmitter(max_pending=2))
    writer = FakeWriter(comes)
    assert writer.take() == b""
    for number in range(2, 7):
        emitters.send(str(number))
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
    assert writer.texts() == ["2", "3", "4", "5", "6"]
    assert (writer.wakes, len(writer.got)) == (1, 1), "as one batch"
    assert (comes.is_open, comes.dropped) == (True, 0)
