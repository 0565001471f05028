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

from .clock import ManualScheduler, emitter_at
from .stress import texts_of
from .waiting import PATIENCE, until


def test_an_event_reaches_every_emitter_and_send_counts_them() -> None:
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter()) for _ in range(3)]
    assert emitters.send("a") == 3
    assert emitters.send(SseEmitter.event().name("n").data("b")) == 3
    assert [texts_of(member) for member in members] == [["a", "b"]] * 3


def test_an_event_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_emitter_is_in_the_list_once_until_it_ends() -> None:
    emitters = SseEmitters()
    emitter = SseEmitter()
    assert emitters.add(emitter) is emitters.add(emitter) is emitter
    assert (len(emitters), emitter in emitters, list(emitters)) == (1, True, [emitter])
    emitter.complete()
    assert (len(emitters), emitter in emitters, list(emitters)) == (0, False, [])
    assert emitters.send("x") == 0


def test_an_emitter_that_has_ended_does_not_enter() -> None:
    emitters = SseEmitters()
    emitter = SseEmitter()
    emitter.complete()
    assert emitters.add(emitter) is emitter
    assert len(emitters) == 0


def test_one_may_be_in_several_lists() -> None:
    lists = [SseEmitters() for _ in range(3)]
    emitter = SseEmitter()
    for emitters in lists:
        emitters.add(emitter)
        emitters.send("x")
    emitter.complete()
    assert [len(emitters) for emitters in lists] == [0, 0, 0]
    assert texts_of(emitter) == ["x", "x", "x"]


def test_removing_leaves_the_stream_open() -> None:
    emitters = SseEmitters()
    emitter = emitters.add(SseEmitter())
    emitters.remove(emitter)
    emitters.remove(emitter)
    assert emitter.is_open
    assert emitters.send("x") == 0


def test_emitters_may_be_told_apart_by_attributes_of_ones_own() -> None:
    emitters = SseEmitters()
    for user in ("ada", "grace", "ada"):
        emitter = emitters.add(SseEmitter())
        emitter.user = user  # type: ignore[attr-defined]
    reached = [emitter for emitter in emitters if emitter.user == "ada"]  # type: ignore[attr-defined]
    for emitter in reached:
        emitter.send("for ada only")
    assert [emitter.pending for emitter in emitters] == [1, 0, 1]


def test_only_emitters_enter() -> None:
    with pytest.raises(TypeError, match=r"add\(\) takes an SseEmitter, not 'x'"):
        SseEmitters().add("x")  # type: ignore[type-var]


def test_an_invalid_event_reaches_nobody_and_the_list_still_works() -> None:
    emitters = SseEmitters()
    emitter = emitters.add(SseEmitter())
    with pytest.raises(InvalidEvent):
        emitters.send(b"bytes")
    emitters.send("fine")
    assert texts_of(emitter) == ["fine"]


def test_one_that_overflows_leaves_and_the_others_get_it() -> None:
    emitters = SseEmitters()
    slow, fast = emitters.add(SseEmitter(max_pending=1)), emitters.add(SseEmitter())
    emitters.send(1)
    assert emitters.send(2) == 2
    assert slow.close_reason is CloseReason.OVERFLOW
    assert list(emitters) == [fast]
    assert texts_of(fast) == ["1", "2"]


def test_complete_ends_all_after_what_was_sent_and_the_list_can_be_used_on() -> None:
    emitters = SseEmitters()
    emitter = emitters.add(SseEmitter())
    emitters.send("last words")
    emitters.complete()
    assert emitter.close_reason is CloseReason.COMPLETED
    assert texts_of(emitter) == ["last words"]
    later = emitters.add(SseEmitter())
    emitters.send("again")
    assert texts_of(later) == ["again"]


def test_json_is_made_by_the_app_of_the_emitters_where_no_context_is_pushed(scheduler: ManualScheduler) -> None:
    app = Flask(__name__)
    SSE(app)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    emitters = SseEmitters()
    emitters.add(emitter_at(scheduler))
    with app.app_context():
        emitter = emitters.add(emitter_at(scheduler))
    emitters.send(["é"])
    assert texts_of(emitter) == ['["é"]']


def test_json_is_made_by_the_only_app_also_while_nobody_is_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Stops whoever hands it an event, until it is let through."""

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


def test_a_second_sender_neither_overtakes_nor_waits() -> None:
    """While one is at work in the list, others leave their events to it, and return."""
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
    """A walker that stands at the first emitter of the list with ``"before"``, and has not come to the others."""
    gate = emitters.add(_Gate())
    for other in others:
        emitters.add(other)
    sender = threading.Thread(target=emitters.send, args=("before",))
    sender.start()
    assert gate.reached.wait(PATIENCE)
    return gate, sender


def test_whatever_is_done_with_one_emitter_comes_after_what_its_list_was_given_before() -> None:
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
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert texts_of(sent_to) == ["to those who stayed"], "what it had caught up with does not come again"
    assert texts_of(looked_at) == ["before", "to all", "to those who stayed"]
    assert texts_of(removed) == []


def test_looking_at_an_emitter_and_catching_up_end_nobody_who_waits_for_events() -> None:
    """What a list sends to an idle client is no backlog, though the walk has not come there yet."""
    emitters, other = SseEmitters(), SseEmitter(max_pending=2)
    wakes: list[str] = []
    stream_of(other).begin(_Sleeper(wakes))
    assert stream_of(other).next_output() == b""
    gate, sender = held_up(emitters, other)
    for number in range(10):
        emitters.send(str(number))
    assert "open, 11 pending" in repr(other)
    assert other.try_send("own")
    assert wakes == ["wake"]
    assert other.try_send("another")
    assert not other.try_send("one too many")
    gate.let.set()
    sender.join(PATIENCE)


class _Sleeper:
    declined: str | None = None

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def wake(self) -> None:
        self._told.append("wake")

    def wake_with(self, payload: bytes) -> None:
        self._told.append(payload.decode())

    def cut(self) -> None:
        self._told.append("cut")

    def unsent(self) -> int | None:
        return None

    def acknowledged(self) -> int | None:
        return None


def test_nothing_that_was_sent_after_the_end_of_a_list_is_delivered() -> None:
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


def test_one_who_joins_while_others_send_gets_all_or_nothing_of_what_comes_before_its_own() -> None:
    """Sends between the steps of ``add``: it has them all, or none, but never the first and not the second."""
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
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert texts_of(emitter) in (["own", "two", "three"], ["own", "three"])


def test_a_list_that_nobody_uses_any_more_keeps_nobody_alive() -> None:
    emitters = SseEmitters()
    gone = [weakref.ref(emitters.add(SseEmitter())) for _ in range(100)]
    emitters.send("x" * 1_000)
    until(lambda: not emitters._delivery._is_passing, "the walk")
    for emitter in emitters:
        emitter.complete()
    del emitter
    gc.collect()
    until(lambda: gc.collect() is not None and not any(each() for each in gone), "all to be let go")
    assert emitters._delivery._batch.payload == b""


class _Unconcerned:
    """Watches a socket, and makes nothing of it."""

    def on_hang_up(self) -> None: ...

    def on_room(self) -> None: ...

    def on_fork(self) -> None: ...


def _handed_off(emitter: SseEmitter) -> None:
    """To a client that is gone, and nobody has noticed yet."""
    server, client = socket.socketpair()
    outlet = SocketWriter(stream_of(emitter), server, True, SOCKET_MONITOR.watch(server.fileno(), _Unconcerned()), ())
    stream_of(emitter).begin(outlet)
    stream_of(emitter).take_over(outlet)
    outlet.begin()
    client.close()


def test_clients_that_turn_out_to_be_gone_are_let_go_without_the_garbage_collector() -> None:
    """Where hundreds leave in a second, it would have to look at everything for them again and again."""
    emitters = SseEmitters()
    gone = [weakref.ref(emitters.add(SseEmitter())) for _ in range(2 * CLIENTS_PER_LOOK)]
    for emitter in emitters:
        _handed_off(emitter)
    del emitter
    gc.collect()
    gc.disable()
    try:
        emitters.send("x")
        until(lambda: not any(each() for each in gone), "all to be let go")
    finally:
        gc.enable()


def test_an_end_of_the_list_that_is_under_way_is_the_end_for_who_catches_up() -> None:
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
    until(lambda: not emitters._delivery._is_passing and not elsewhere._delivery._is_passing, "the walks")
    assert texts_of(other) == []
    assert other.close_reason is CloseReason.COMPLETED


def test_one_who_catches_up_beyond_its_bound_overflows() -> None:
    emitters, other = SseEmitters(), SseEmitter(max_pending=2)
    gate, sender = held_up(emitters, other)
    emitters.send("second")
    emitters.send("third")
    assert not other.try_send("fourth")
    assert other.close_reason is CloseReason.OVERFLOW
    gate.let.set()
    sender.join(PATIENCE)


def test_one_who_has_caught_up_with_a_part_of_a_batch_gets_the_rest_of_it() -> None:
    emitters, other = SseEmitters(), SseEmitter()
    gate, sender = held_up(emitters, other)
    emitters.send("1")
    other.send("own")
    emitters.send("2")
    emitters.send("3")
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert texts_of(other) == ["before", "1", "own", "2", "3"]
    assert texts_of(gate) == ["before", "1", "2", "3"]


def test_what_waits_goes_on_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
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
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert [count for count in batches if count > 1] == [21, 21], "and no more at once than makes a good write"
    assert len(texts_of(other)) == 24


def test_what_waits_goes_on_one_walk_though_clients_come_and_go_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a list that is behind, and whose clients come and go, could not gather what waits, and would stay behind."""
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
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert {count for count in batches if count > 1} == {4}
    assert texts_of(stays) == texts_of(gate) == ["before", "1", "2", "3", "4"]
    assert texts_of(comes) == ["2", "3", "4"]
    assert texts_of(ends) == ["before", "1", "2", "3"]


class _Interlude:
    """A lock after which, once the walker has let go, another begins and is held up, before the first goes on."""

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


def test_a_walker_that_has_let_go_leaves_the_next_one_alone() -> None:
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
        "the rest, which the background serves where the sender's slice is over",
    )
    assert all(texts_of(member) == ["first", "second"] for member in members)


def test_a_sender_serves_the_first_clients_and_leaves_the_others_to_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "flask_sse_emitters.broadcast.delivery.monotonic", lambda: 0.0
    )  # its slice of time is not over before
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter()) for _ in range(1_000)]
    assert emitters.send("x") == 1_000
    assert all(len(stream_of(member).outgoing.backlog) for member in members[:INLINE_CLIENTS])
    assert members[-1].pending == 1, "whoever looks sees no difference"
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert all(texts_of(member) == ["x"] for member in members)


def send_while_held_up(count: int) -> _Gate:
    """Send so many, all but the first while the emitter that this gives back holds the sender of the first up."""
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


def test_nobody_is_kept_at_work_for_others_without_end() -> None:
    gate = send_while_held_up(500)
    until(lambda: len(stream_of(gate).outgoing.backlog) == 500, "the background to do the rest")
    assert texts_of(gate) == [str(number) for number in range(500)]


def test_an_interrupted_sender_leaves_the_rest_to_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_removing_takes_back_what_adding_left_with_the_emitter() -> None:
    emitters = SseEmitters()
    emitter = SseEmitter()
    for _ in range(100):
        emitters.add(emitter)
        emitters.remove(emitter)
    assert stream_of(emitter).outgoing.members == ()
    emitters.add(emitter)
    emitter.complete()
    assert len(emitters) == 0


def test_callbacks_that_block_hold_no_event_up() -> None:
    release = threading.Event()
    for _ in range(16):
        blocking = SseEmitter()
        blocking.on_completion(lambda: release.wait(PATIENCE))
        blocking.complete()
    gate = send_while_held_up(200)
    until(lambda: len(stream_of(gate).outgoing.backlog) == 200, "the background to do the rest")
    release.set()


def test_senders_give_way_where_events_are_sent_faster_than_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_list_waits_where_a_few_large_events_are_to_be_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_forked_child_has_lists_of_its_own() -> None:
    """Also where another thread of the parent was handing out events at the time."""
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


def test_it_tells_how_many_there_are() -> None:
    emitters = SseEmitters()
    emitters.add(SseEmitter())
    assert repr(emitters) == "<SseEmitters of 1>"
    assert Event("x") not in emitters


def test_a_finalizer_that_the_garbage_collector_runs_in_the_middle_of_a_send_may_send_as_well() -> None:
    """It runs wherever memory is asked for, also under a lock."""
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


def test_who_is_removed_gets_what_was_sent_meanwhile_though_more_is_sent_before_it_is_carried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The count of ``send`` has said so."""
    emitters, leaves, stays = SseEmitters(), SseEmitter(), SseEmitter()
    gate, sender = held_up(emitters, leaves, stays)
    original, reached = Stream.leave, []

    def part(stream: Stream, member: Any) -> None:
        reached.append(emitters.send("1"))
        original(stream, member)

    monkeypatch.setattr(Stream, "leave", part)
    emitters.remove(leaves)
    monkeypatch.undo()
    reached.append(emitters.send("2"))
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert reached == [3, 2]
    assert texts_of(leaves) == ["before", "1"]
    assert texts_of(stays) == texts_of(gate) == ["before", "1", "2"]


def test_who_comes_amid_a_batch_and_waits_for_it_is_bound_by_nothing() -> None:
    """As those who were there for all of it are."""
    emitters, first = SseEmitters(), SseEmitter()
    gate, sender = held_up(emitters, first)
    emitters.send("1")
    comes, told = emitters.add(SseEmitter(max_pending=2)), list[str]()
    stream_of(comes).begin(_Sleeper(told))
    assert stream_of(comes).next_output() == b""
    for number in range(2, 7):
        emitters.send(str(number))
    gate.let.set()
    sender.join(PATIENCE)
    until(lambda: not emitters._delivery._is_passing, "the walk")
    assert told == ["".join(f"data: {number}\n\n" for number in range(2, 7))]
    assert (comes.is_open, comes.dropped) == (True, 0)
