"""Streams and lists beside a simple model, step by step, in any order and on any thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from flask import has_app_context
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from flask_sse_emitters import CloseReason, EmitterClosed, Event, SseEmitter, SseEmitters
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from tests.concurrency.model_machine import HELPER, KINDS, QUICK, BaseMachine, names, picks, rarely, workers
from tests.concurrency.model_streams import ModelEmitter, ModelList
from tests.concurrency.stage import FOLLOWING
from tests.unit.doubles.clock import emitter_at
from tests.unit.doubles.writer import FakeWriter


class Pair:
    """An emitter and its model."""

    def __init__(self, emitter: SseEmitter, model: ModelEmitter) -> None:
        self.emitter = emitter
        self.model = model
        self.writer: FakeWriter | None = None
        self.called: list[tuple[str, int]] = []
        self.wrong: list[str] = []


class Streams(BaseMachine):
    """Emitters and lists."""

    def __init__(self, write_seconds: float = 0) -> None:
        super().__init__(write_seconds)
        self.pairs: list[Pair] = []
        self.lists = [(SseEmitters(), ModelList()) for _ in range(2)]

    def pair(self, pick: int) -> Pair:
        return self.pairs[pick % len(self.pairs)]

    @initialize(worker=workers, timeout=st.sampled_from([0.0, 45.0]), takes=st.booleans())
    def begin(self, worker: int, timeout: float, takes: bool) -> None:
        """Start some streams and register callbacks, as most failures need running streams."""
        for pick, overflow in enumerate(["close", "drop_oldest", "coalesce", "drop_oldest"]):
            self.make(worker, 2, overflow, timeout)
            for kind in (*KINDS, *KINDS):
                self.register(worker, pick, kind, "nothing")
            if pick < 3:
                self.attach(worker, pick, pick > 0)
            if takes:
                self.take(worker, pick, 1)
            self.add(worker, pick, 0)

    @precondition(lambda self: len(self.pairs) < 7)
    @rule(
        worker=workers,
        most=st.integers(1, 3),
        overflow=st.sampled_from(["close", "drop_oldest", "coalesce"]),
        timeout=st.sampled_from([0.0, 20.0, 60.0]),
    )
    def make(self, worker: int, most: int, overflow: Any, timeout: float) -> None:
        given: dict[str, Any] = {"max_pending": most, "overflow": overflow, "heartbeat": 0}
        emitter = self.on(worker, lambda: emitter_at(self.time, timeout, **given))
        self.pairs.append(Pair(emitter, ModelEmitter(self.time.now, timeout, most, overflow)))

    @rule(worker=workers, pick=picks, name=names, tries=st.booleans())
    def send(self, worker: int, pick: int, name: str, tries: bool) -> None:
        pair, text = self.pair(pick), str(self.new())
        event = Event(text, event=name)
        took = pair.model.send(name, text)
        if tries:
            assert self.on(worker, lambda: pair.emitter.try_send(event)) is took
        elif took:
            self.on(worker, lambda: pair.emitter.send(event))
        else:
            with pytest.raises(EmitterClosed) as caught:
                self.on(worker, lambda: pair.emitter.send(event))
            assert (caught.value.reason, caught.value.error) == (pair.model.reason, pair.emitter.error)

    @rule(
        worker=workers, pick=picks, how=st.sampled_from(["complete", "error", "disconnect", "shut down"]), does=rarely
    )
    def end(self, worker: int, pick: int, how: str, does: bool = True) -> None:
        if not does:
            return
        pair = self.pair(pick)
        emitter, model, error = pair.emitter, pair.model, KeyError(how)
        before = (emitter.close_reason, emitter.error)
        self.on(
            worker,
            {
                "complete": emitter.complete,
                "error": lambda: emitter.complete_with_error(error),
                "disconnect": lambda: stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("gone")),
                "shut down": lambda: stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b""),
            }[how],
        )
        if how == "disconnect":
            model.end(CloseReason.DISCONNECTED)
        else:
            reasons = {"complete": CloseReason.COMPLETED, "error": CloseReason.ERROR, "shut down": CloseReason.SHUTDOWN}
            model.complete(reasons[how])
        if before[0] is not None:
            assert (emitter.close_reason, emitter.error) == before
        elif model.reason is CloseReason.ERROR:
            assert emitter.error is error

    @rule(
        worker=workers,
        pick=picks,
        kind=st.sampled_from(KINDS),
        does=st.sampled_from(["nothing", "raises", "registers", "sends to its list", "completes another"]),
    )
    def register(self, worker: int, pick: int, kind: str, does: str) -> None:
        pair, number = self.pair(pick), self.new()

        def call(*error: BaseException) -> None:
            pair.called.append((kind, number))
            if pair.emitter.is_open or error != ((pair.emitter.error,) if kind == "error" else ()):
                pair.wrong.append(f"{kind} {number}: open, or with {error}")
            if has_app_context() is not pair.model.has_app or (error and not error[0]):
                pair.wrong.append(f"{kind} {number}: the context")
            if does == "raises":
                raise SystemExit(1)
            if does == "registers":
                self.register(worker, pick, kind, "nothing")
            if does == "sends to its list":
                self.send_to_list(worker, 0, "a")
            if does == "completes another":
                self.end(worker, pick + 1, "complete")

        self.on(worker, lambda: getattr(pair.emitter, f"on_{kind}")(call))
        pair.model.register(kind, number)

    @rule(worker=workers, pick=picks, direct=st.booleans())
    def attach(self, worker: int, pick: int, direct: bool) -> None:
        """Begin its response, once."""
        pair = self.pair(pick)
        if pair.writer is None:
            self.respond(pair.emitter)
            pair.writer = self.on(worker, lambda: FakeWriter(pair.emitter, direct=direct))
            pair.model.is_attached = pair.model.is_streaming = True
            pair.model.is_direct = direct
            pair.model.is_idle = direct and pair.model.reason is None and not pair.model.queue

    @rule(worker=workers, pick=picks, most=st.integers(1, 4))
    def take(self, worker: int, pick: int, most: int) -> None:
        pair = self.pair(pick)
        if pair.writer is None or not pair.writer.is_awake:
            return
        for _ in range(most):
            payload = self.on(worker, pair.writer.take)
            taken = pair.model.take()
            assert (payload is None) is (taken is None)
            if payload is None:
                self.close(worker, pick)
            if not payload:
                return
            assert [event.data for event in decode(payload)] == taken

    @rule(worker=workers)
    def all_take(self, worker: int) -> None:
        for pick in range(len(self.pairs)):
            self.take(worker, pick, 4)

    @rule(worker=workers, which=st.integers(0, 1), count=st.integers(1, 4), takes=st.booleans())
    def send_some(self, worker: int, which: int, count: int, takes: bool) -> None:
        for number in range(count):
            self.send_to_list(worker, which, "ab"[number % 2])
            if takes:
                self.all_take(worker)

    @rule(worker=workers, pick=picks, does=rarely)
    def close(self, worker: int, pick: int, does: bool = True) -> None:
        """Close the response, as the server does at its end."""
        pair = self.pair(pick)
        if pair.writer is not None and does:
            self.on(worker, lambda: stream_of(pair.emitter).release(ConnectionAbortedError("closed")))
            pair.model.disconnect()
            pair.writer.is_awake = False

    @rule(worker=workers, pick=picks, which=st.integers(0, 1))
    def add(self, worker: int, pick: int, which: int) -> None:
        (real, model), pair = self.lists[which], self.pair(pick)
        assert self.on(worker, lambda: real.add(pair.emitter)) is pair.emitter
        model.add(pair.model)

    @rule(worker=workers, pick=picks, which=st.integers(0, 1))
    def remove(self, worker: int, pick: int, which: int) -> None:
        (real, model), pair = self.lists[which], self.pair(pick)
        self.on(worker, lambda: real.remove(pair.emitter))
        model.take_out(pair.model)

    @rule(worker=workers, which=st.integers(0, 1), name=names)
    def send_to_list(self, worker: int, which: int, name: str) -> None:
        (real, model), text = self.lists[which], str(self.new())
        reached = self.on(worker, lambda: real.send(Event(text, event=name)))
        assert reached == model.put((name, text), worker == 0)

    @rule(worker=workers, which=st.integers(0, 1), does=rarely)
    def complete_list(self, worker: int, which: int, does: bool) -> None:
        if not does:
            return
        real, model = self.lists[which]
        self.on(worker, real.complete)
        model.put(None, worker == 0)

    @rule()
    def background(self) -> None:
        """Run the delivery passes that were left to the background."""
        order = [call.__self__ for call in self.later._soon]  # type: ignore[attr-defined]
        self.on(0, self.later.finish)
        for real, model in sorted(
            self.lists, key=lambda pair: order.index(pair[0]._delivery) if pair[0]._delivery in order else -1
        ):
            if real._delivery in order:
                model.deliver_all()

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 29.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.on(0, lambda: self.time.pass_time(seconds))
        for pair in self.pairs:
            due = pair.model.ends_at()
            if due is not None and due[0] <= self.time.now:
                pair.model.complete(due[1])

    @rule()
    def run_callbacks(self) -> None:
        jobs, self.time.jobs = self.time.jobs, []
        for job in jobs:
            self.on(HELPER, job)

    @invariant()
    def agrees(self) -> None:
        for pair in self.pairs:
            emitter, model = pair.emitter, pair.model
            assert emitter.close_reason is model.reason
            assert emitter.is_open is (model.reason is None)
            has_error = model.reason is not None and "error" in FOLLOWING[model.reason]
            assert (emitter.error is not None) is has_error
            assert (emitter.pending, emitter.dropped) == (model.pending, model.dropped)
            assert pair.called == model.called[: len(pair.called)]
            assert self.time.jobs or pair.called == model.called, "a callback has not run"
            assert pair.wrong == []
            if pair.writer is not None:
                assert [event.data for event in decode(b"".join(pair.writer.got))] == model.got
                assert pair.writer.is_awake is not model.is_idle or not model.is_streaming
        for real, model_list in self.lists:
            assert list(real) == [self.real(member) for member in model_list.members]

    @invariant()
    def counts_agree(self) -> None:
        models = [pair.model for pair in self.pairs if pair.model.is_attached]
        stats = self.sse.stats()
        assert (stats["opened"], stats["clients"]) == (len(models), sum(model.is_streaming for model in models))
        gone = [model for model in models if not model.is_streaming]
        assert stats["closed"] == dict(Counter(model.reason.value for model in gone if model.reason))
        assert stats["deliveries"] == sum(len(model.got) for model in models)
        writers = [pair.writer for pair in self.pairs if pair.writer is not None]
        assert stats["bytes"] == sum(len(b"".join(writer.got)) for writer in writers)
        assert stats["dropped"] == sum(model.dropped for model in models)
        late = [model for model in models if model.is_streaming and (not model.is_idle or model.dropped)]
        assert stats["pending"] == sum(model.pending for model in late)

    def real(self, model: ModelEmitter) -> SseEmitter:
        return next(pair.emitter for pair in self.pairs if pair.model is model)


Streams.TestCase.settings = QUICK
TestEmittersAndLists = Streams.TestCase


@pytest.fixture
def machine() -> Iterator[Streams]:
    machine = Streams(write_seconds=30)
    yield machine
    machine.teardown()


@pytest.mark.parametrize("direct", [False, True])
def test_event_queued_by_list_is_counted_when_idle_writer_takes_it(direct: bool, machine: Streams) -> None:
    """A list queues an event; before a delivery pass, another event is sent to the emitter."""
    clients = SseEmitters()
    emitter = clients.add(emitter_at(machine.time))
    machine.respond(emitter)
    writer = FakeWriter(emitter, direct=direct)
    assert writer.take() == b""
    machine.on(1, lambda: clients.send("a"))
    emitter.send("b")
    assert (writer.take(), writer.take()) == (b"data: a\n\n", b"data: b\n\n")
    assert machine.sse.stats()["deliveries"] == 2


@pytest.mark.parametrize("does", ["leaves list", "is completed", "is completed by list"])
def test_write_timeout_starts_at_list_delivery_though_emitter_leaves(does: str, machine: Streams) -> None:
    """A client has its full write time for an event of a list, even if it leaves the list meanwhile."""
    clients = SseEmitters()
    emitter = clients.add(emitter_at(machine.time, 0, heartbeat=0))
    machine.respond(emitter)
    assert FakeWriter(emitter).take() == b""
    machine.time.pass_time(20)
    machine.on(0, lambda: [clients.send(text) for text in "ab"])
    assert emitter.pending == 1, "the first has been given to the writer"
    leave = {"leaves list": lambda: clients.remove(emitter), "is completed": emitter.complete}
    machine.on(0, leave.get(does, clients.complete))
    machine.time.pass_time(20)
    assert emitter.pending == 1, "it has had the first event for 20 s of its 30"
    machine.time.pass_time(20)
    assert emitter.pending == 0
