"""Compare emitters, lists and channels with a simple model, step by step, in any order and on any thread.

A longer run by hand: ``MODEL_EXAMPLES=20000``. A failure is shrunk and printed as a program.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations
from typing import Any

import pytest
from flask import Flask, has_app_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flask_sse_emitters import SSE, CloseReason, EmitterClosed, Event, SseEmitter, SseEmitters
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from tests.concurrency.model_stage import FOLLOWING, Journal, rest_of
from tests.concurrency.model_streams import AT_THE_LATEST, WRITE_SECONDS, ModelEmitter, ModelList
from tests.support.waiting import PATIENCE
from tests.unit.doubles.clock import ManualScheduler, emitter_at

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "80"))
QUICK = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    derandomize="MODEL_EXAMPLES" not in os.environ,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

#: Threads that do the steps. Only on the first one may lists run delivery passes.
WORKERS = 3
workers = st.integers(0, WORKERS - 1)
picks = st.integers(0, 11)
names = st.sampled_from("ab")
rarely = st.integers(0, 3).map(lambda number: number == 0)  # an ended stream shows nothing more
KINDS = ("completion", "timeout", "error")


class DeferringScheduler(ManualScheduler):
    """A scheduler that calls nothing before ``finish`` and shares another's clock."""

    def __init__(self, time: ManualScheduler) -> None:
        super().__init__()
        self.clock = lambda: time.now

    def finish(self) -> None:
        while self._soon:
            call = self._soon.popleft()
            if call() is True:
                self._soon.append(call)


class SteppedWriter:
    """A writer that takes output in a step; lists write straight to a direct one while it sleeps."""

    declined: str | None = None

    def __init__(self, emitter: SseEmitter, *, direct: bool) -> None:
        self.emitter = emitter
        self.got: list[bytes] = []
        self.is_awake = True
        self.client = self if direct else None
        stream_of(emitter).begin(self)
        if direct:
            stream_of(emitter).take_over(self)

    def take(self) -> bytes | None:
        self.is_awake = False
        payload = stream_of(self.emitter).next_output()
        if payload:
            self.got.append(payload)
            self.is_awake = True
        return payload

    def wake(self) -> None:
        assert not self.is_awake, "woken twice"
        self.is_awake = True

    def wake_with(self, payload: bytes) -> None:
        self.wake()
        self.got.append(payload)

    def send(self, data: bytes) -> int:
        size, _, rest = data.partition(b"\r\n")
        self.got.append(rest[: int(size, 16)])
        return len(data)

    def beat(self, payload: bytes) -> None: ...

    def keep(self, data: bytes, sent: int) -> None: ...

    def lose(self, error: OSError) -> None: ...

    def cut(self) -> None: ...

    def unsent(self) -> int | None:
        return None

    def acknowledged(self) -> int | None:
        return None


class BaseMachine(RuleBasedStateMachine):
    """The base of both machines: an app, a clock that a step moves, and threads that do one step each."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("flask_sse_emitters.streams.ends.log.exception", lambda *_: None)  # some raise
        self.time = ManualScheduler()
        self.later = DeferringScheduler(self.time)
        for module in ("broadcast.delivery", "channels.replay.machine", "channels.registry"):
            self.patch.setattr(f"flask_sse_emitters.{module}.SCHEDULER", self.later)
        self.main = threading.local()
        self.patch.setattr(
            "flask_sse_emitters.broadcast.delivery.on_main_loop", lambda: getattr(self.main, "here", False)
        )
        self.workers = [ThreadPoolExecutor(1) for _ in range(WORKERS)]
        self.workers[0].submit(setattr, self.main, "here", True).result()
        self.app = Flask(__name__)
        self.app.config.update(SSE_HISTORY=4, SSE_HISTORY_SECONDS=0)
        self.sse = SSE(self.app)
        self.state = self.app.extensions["sse_emitters"]
        self.state.streams.scheduler = self.time
        self.counter = 0

    def teardown(self) -> None:
        for worker in self.workers:
            worker.shutdown()
        self.patch.undo()

    def on(self, worker: int, call: Callable[[], Any]) -> Any:
        return self.workers[worker].submit(call).result()

    def new(self) -> int:
        self.counter += 1
        return self.counter

    def respond(self, emitter: SseEmitter) -> None:
        """Do what a view's response does with an emitter."""
        with self.app.app_context():
            stream_of(emitter).attach(self.state.settings, self.state.streams)
        self.state.streams.admit(emitter)


class Pair:
    """An emitter and its model."""

    def __init__(self, emitter: SseEmitter, model: ModelEmitter) -> None:
        self.emitter = emitter
        self.model = model
        self.writer: SteppedWriter | None = None
        self.called: list[tuple[str, int]] = []
        self.wrong: list[str] = []


class Streams(BaseMachine):
    """Emitters and lists."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[Pair] = []
        self.lists = [(SseEmitters(), ModelList()) for _ in range(2)]
        self.opened = 0
        self.closed: Counter[str] = Counter()

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
                self.attach(pick)
                self.stream(worker, pick, pick == 1)
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

    @rule(pick=picks)
    def attach(self, pick: int) -> None:
        pair = self.pair(pick)
        if pair.model.is_attached:
            return
        self.respond(pair.emitter)
        pair.model.is_attached = pair.model.is_counted = True
        if pair.model.reason is not None:
            pair.model.left_at = self.time.now + 30
        self.opened += 1

    @rule(worker=workers, pick=picks, direct=st.booleans())
    def stream(self, worker: int, pick: int, direct: bool) -> None:
        """Begin the response, if there is one."""
        pair = self.pair(pick)
        if not pair.model.is_attached or pair.writer is not None:
            return
        pair.writer = self.on(worker, lambda: SteppedWriter(pair.emitter, direct=direct))
        pair.model.is_streaming, pair.model.is_direct = True, direct

    @rule(worker=workers, pick=picks, most=st.integers(1, 4))
    def take(self, worker: int, pick: int, most: int) -> None:
        pair = self.pair(pick)
        if pair.writer is None or not pair.writer.is_awake:
            return
        for _ in range(most):
            payload = self.on(worker, pair.writer.take)
            taken = pair.model.take(self.time.now)
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
        if pair.model in model.members:
            pair.model.catch_up()
            model.remove(pair.model)

    @rule(worker=workers, which=st.integers(0, 1), name=names)
    def send_to_list(self, worker: int, which: int, name: str) -> None:
        (real, model), text = self.lists[which], str(self.new())
        reached = self.on(worker, lambda: real.send(Event(text, event=name)))
        assert reached == model.put((name, text), self.time.now, worker == 0)

    @rule(worker=workers, which=st.integers(0, 1), does=rarely)
    def complete_list(self, worker: int, which: int, does: bool) -> None:
        if not does:
            return
        real, model = self.lists[which]
        self.on(worker, real.complete)
        model.put(None, self.time.now, worker == 0)

    @rule()
    def background(self) -> None:
        """Run the delivery passes that were left to the background."""
        order = [call.__self__ for call in self.later._soon]  # type: ignore[attr-defined]
        self.on(0, self.later.finish)
        for real, model in sorted(
            self.lists, key=lambda pair: order.index(pair[0]._delivery) if pair[0]._delivery in order else -1
        ):
            if real._delivery in order:
                model.deliver_all(self.time.now)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 29.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.on(0, lambda: self.time.pass_time(seconds))
        now = self.time.now
        for pair in self.pairs:
            model, due = pair.model, pair.model.ends_at()
            certain = due if due is not None and due[0] <= now else None
            stuck = model.busy_since if model.is_streaming and model.reason is None else None
            if stuck is not None and stuck + WRITE_SECONDS <= (now if certain is None else certain[0]):
                allowed = {CloseReason.DISCONNECTED}
                if stuck + AT_THE_LATEST > (now if certain is None else certain[0]):
                    allowed.add(None if certain is None else certain[1])  # type: ignore[arg-type]
                reason = pair.emitter.close_reason
                assert reason in allowed
            else:
                reason = None if certain is None else certain[1]
            if reason in (CloseReason.TIMEOUT, CloseReason.ERROR):
                model.complete(reason)
            elif reason is not None:
                model.end(reason)
            model.give_up_writing(now, has_given_up=pair.emitter.pending == 0)
            if model.left_at is not None and model.left_at <= now and not model.is_streaming:
                model.is_counted = False

    @rule()
    def run_callbacks(self) -> None:
        jobs, self.time.jobs = self.time.jobs, []
        helper = ThreadPoolExecutor(1)
        try:
            for job in jobs:
                helper.submit(job).result()
        finally:
            helper.shutdown()

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
        models = [pair.model for pair in self.pairs]
        counted = [model for model in models if model.is_counted]
        stats = self.sse.stats()
        assert (stats["opened"], stats["clients"]) == (self.opened, len(counted))
        gone = [model for model in models if model.is_attached and not model.is_counted]
        assert stats["closed"] == dict(Counter(model.reason.value for model in gone if model.reason))
        assert stats["deliveries"] == sum(len(model.got) for model in models)
        writers = [pair.writer for pair in self.pairs if pair.writer is not None]
        assert stats["bytes"] == sum(len(b"".join(writer.got)) for writer in writers)
        assert stats["dropped"] == sum(model.dropped for model in models if model.is_attached)
        late = [model for model in counted if not model.is_idle or model.dropped]
        assert stats["pending"] == sum(model.pending for model in late)

    def real(self, model: ModelEmitter) -> SseEmitter:
        return next(pair.emitter for pair in self.pairs if pair.model is model)


class Reader:
    """A reader of a channel over one stream after the other, and what it knows."""

    def __init__(self, last: str | None, at: int) -> None:
        self.last = last  # its Last-Event-ID
        self.at = at  # the offset of the newest event that it has
        self.needs_gap = False  # its id is unknown or too old: it must get a gap
        self.emitter: SseEmitter | None = None
        self.writer: SteppedWriter | None = None
        self.seen = 0
        self.ended_at = 0


class Readers(BaseMachine):
    """A channel that keeps four events, and readers that come and go."""

    KEPT = 4

    def __init__(self) -> None:
        super().__init__()
        broker = self.state.channels.broker
        assert isinstance(broker, MemoryBroker)
        broker._scheduler = self.later
        self.channel = self.sse.channel("news")
        self.texts: list[str] = []
        self.readers: list[Reader] = []
        self.epoch = ""
        self.delivered = self.gaps = 0

    def teardown(self) -> None:
        for reader in self.readers:
            self.disconnect(0, reader)
        super().teardown()

    def reader(self, pick: int) -> Reader | None:
        return self.readers[pick % len(self.readers)] if self.readers else None

    @rule(worker=workers, count=st.integers(1, 6))
    def publish(self, worker: int, count: int) -> None:
        for _ in range(count):
            self.texts.append(str(self.new()))
            event_id = self.on(worker, lambda: self.channel.publish(self.texts[-1]))
            self.epoch, _, offset = event_id.partition("-")
            assert int(offset) == len(self.texts), "offsets have no hole"

    @precondition(lambda self: len(self.readers) < 4)
    @rule(
        worker=workers,
        direct=st.booleans(),
        come=st.sampled_from(["first", "known id", "other epoch", "bad id"]),
        at=picks,
    )
    def come(self, worker: int, direct: bool, come: str, at: int) -> None:
        at = at % (len(self.texts) + 1)
        if come == "first" or (come == "known id" and not self.epoch):
            reader = Reader(None, len(self.texts))
        else:
            last = {"known id": f"{self.epoch}-{at}", "other epoch": f"other-{at}", "bad id": "no id"}[come]
            reader = Reader(last, at if come == "known id" else -1)
        self.readers.append(reader)
        self.connect(worker, reader, direct)

    @rule(worker=workers, pick=picks, direct=st.booleans())
    def reconnect(self, worker: int, pick: int, direct: bool) -> None:
        """Connect with the newest id that it has seen."""
        reader = self.reader(pick)
        if reader is not None and (reader.emitter is None or not reader.emitter.is_open) and reader.last is not None:
            self.disconnect(worker, reader)
            self.connect(worker, reader, direct)

    def connect(self, worker: int, reader: Reader, direct: bool) -> None:
        oldest = max(1, len(self.texts) + 1 - self.KEPT)
        reader.needs_gap = reader.last is not None and reader.at < oldest - 1
        emitter = self.on(worker, lambda: self.channel.subscribe(last_event_id=reader.last or ""))
        self.respond(emitter)
        reader.emitter, reader.seen = emitter, 0
        reader.writer = self.on(worker, lambda: SteppedWriter(emitter, direct=direct))

    @rule(worker=workers, pick=picks, most=st.integers(1, 4))
    def take(self, worker: int, pick: int, most: int) -> None:
        reader = self.reader(pick)
        for _ in range(most):
            if reader is None or reader.writer is None or not reader.writer.is_awake:
                return
            payload = self.on(worker, reader.writer.take)
            self.read(reader)
            if payload is None:
                assert reader.at == reader.ended_at, "events published before its end are missing"
                self.disconnect(worker, reader)

    @rule(worker=workers, pick=picks)
    def complete(self, worker: int, pick: int) -> None:
        reader = self.reader(pick)
        if reader is not None and reader.emitter is not None and reader.emitter.is_open:
            self.on(worker, reader.emitter.complete)
            reader.ended_at = len(self.texts)

    @rule(worker=workers, pick=picks)
    def leave(self, worker: int, pick: int) -> None:
        reader = self.reader(pick)
        if reader is not None:
            self.disconnect(worker, reader)

    @rule()
    def background(self) -> None:
        self.on(0, self.later.finish)

    def disconnect(self, worker: int, reader: Reader) -> None:
        if reader.emitter is not None:
            emitter = reader.emitter
            self.on(worker, lambda: stream_of(emitter).release(ConnectionAbortedError("closed")))
            self.read(reader)
            reader.emitter = reader.writer = None

    def read(self, reader: Reader) -> None:
        """Check what its stream has brought: each event once, in order, and a gap for lost ones."""
        assert reader.writer is not None
        wire = b"".join(reader.writer.got)
        events = decode(wire)
        for event in events[reader.seen :]:
            if event.event == "gap":
                self.read_gap(reader, json.loads(event.data))
                continue
            assert not reader.needs_gap, "no gap was announced"
            assert event.id == f"{self.epoch}-{reader.at + 1}"
            assert event.data == self.texts[reader.at]
            reader.at, reader.last = reader.at + 1, str(event.id)
            self.delivered += 1
        reader.seen = len(events)
        if reader.last is None and (lines := [line for line in wire.split(b"\n") if line.startswith(b"id: ")]):
            assert lines[0] == f"id: {lines[0][4:9].decode()}-{reader.at - len(events)}".encode(), "the id of its start"
            reader.last = lines[-1][4:].decode()

    def read_gap(self, reader: Reader, gap: dict[str, str]) -> None:
        oldest = int(gap["oldest"].partition("-")[2])
        assert gap["requested"] == reader.last
        assert reader.needs_gap or oldest > reader.at + 1, "a gap, though no event is missing"
        assert oldest - 1 <= max(0, len(self.texts) - self.KEPT), "a gap that covers kept events"
        reader.at, reader.needs_gap = oldest - 1, False
        reader.last = f"{gap['oldest'].partition('-')[0]}-{oldest - 1}"
        self.gaps += 1

    @invariant()
    def all_events_arrive(self) -> None:
        """Read every stream. Invariants run in the order of their names, so this one runs before ``counts_agree``."""
        for reader in self.readers:
            if reader.writer is not None:
                self.read(reader)
        for reader in self.readers:
            if reader.writer is not None and reader.emitter is not None and reader.emitter.is_open:
                missing = len(self.texts) - reader.at
                if not (reader.writer.is_awake or self.later._soon):
                    assert (missing, reader.needs_gap, reader.emitter.pending) == (0, False, 0)

    @invariant()
    def counts_agree(self) -> None:
        stats = self.sse.stats()
        assert (stats["deliveries"], stats["gaps"]) == (self.delivered, self.gaps)
        there = [reader for reader in self.readers if reader.emitter is not None and reader.emitter.is_open]
        assert stats["channels"] == ({"news": len(there)} if there else {})
        assert stats["published"] == stats["publish"]["count"] == len(self.texts)


Streams.TestCase.settings = Readers.TestCase.settings = QUICK
TestEmittersAndLists = Streams.TestCase
TestChannels = Readers.TestCase


# Several steps at once.


class Played:
    """An emitter, and the steps that several threads do with it."""

    def __init__(self, overflow: Any) -> None:
        self.time = ManualScheduler()
        self.emitter = emitter_at(self.time, 20, heartbeat=0, max_pending=1, overflow=overflow)
        self.journal = Journal(self.emitter)
        self.late = 0

    def register(self) -> None:
        @self.emitter.on_completion
        def count() -> None:
            self.late += 1

    def outcome(self) -> tuple[Any, ...]:
        """Return everything observable afterwards."""
        self.time.run_jobs()
        emitter = self.emitter
        observed = (tuple(self.journal.calls), self.late, emitter.pending, emitter.dropped, tuple(rest_of(emitter)))
        return (emitter.close_reason, type(emitter.error), *observed)


STEPS: dict[str, Callable[[Played], object]] = {
    "send": lambda played: played.emitter.try_send("a"),
    "send other": lambda played: played.emitter.try_send("b"),
    "complete": lambda played: played.emitter.complete(),
    "error": lambda played: played.emitter.complete_with_error(KeyError("x")),
    "time": lambda played: played.time.pass_time(20),
    "disconnect": lambda played: stream_of(played.emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("gone")),
    "register": Played.register,
}


def _play(steps: list[str], overflow: Any, order: Sequence[int] | None) -> tuple[Any, ...]:
    """Return the outcome of the steps in an order, or of all at once without one."""
    played = Played(overflow)
    calls = [partial(STEPS[name], played) for name in steps]
    if order is not None:
        results = {index: calls[index]() for index in order}
        return (*played.outcome(), *(results[index] for index in range(len(steps))))
    barrier = threading.Barrier(len(calls))
    with ThreadPoolExecutor(len(calls)) as pool:
        at_once = list(pool.map(lambda call: (barrier.wait(PATIENCE), call())[1], calls))
    return (*played.outcome(), *at_once)


@settings(QUICK, max_examples=max(20, EXAMPLES // 5))
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=4).filter(lambda steps: steps.count("time") < 2),
    st.sampled_from(["close", "drop_oldest"]),
)
def test_concurrent_steps_have_the_outcome_of_some_serial_order(steps: list[str], overflow: Any) -> None:
    allowed = {_play(steps, overflow, order) for order in permutations(range(len(steps)))}
    for _ in range(10):
        assert _play(steps, overflow, None) in allowed


@pytest.mark.parametrize("direct", [False, True])
def test_event_queued_by_list_is_counted_when_idle_writer_takes_it(direct: bool) -> None:
    """A list queues an event; before a delivery pass, another event is sent to the emitter."""
    machine = Streams()
    try:
        clients = SseEmitters()
        emitter = clients.add(emitter_at(machine.time))
        machine.respond(emitter)
        writer = SteppedWriter(emitter, direct=direct)
        assert writer.take() == b""
        machine.on(1, lambda: clients.send("a"))
        emitter.send("b")
        assert (writer.take(), writer.take()) == (b"data: a\n\n", b"data: b\n\n")
        assert machine.sse.stats()["deliveries"] == 2
    finally:
        machine.teardown()


@pytest.mark.parametrize("does", ["leaves list", "is completed", "is completed by list"])
def test_write_timeout_starts_at_list_delivery_though_emitter_leaves(does: str) -> None:
    """A client has its full write time for an event of a list, even if it leaves the list meanwhile."""
    machine = Streams()
    try:
        clients = SseEmitters()
        emitter = clients.add(emitter_at(machine.time, 0, heartbeat=0))
        machine.respond(emitter)
        assert SteppedWriter(emitter, direct=False).take() == b""
        machine.time.pass_time(20)
        machine.on(0, lambda: [clients.send(text) for text in "ab"])
        assert emitter.pending == 1, "the first has been given to the writer"
        leave = {"leaves list": lambda: clients.remove(emitter), "is completed": emitter.complete}
        machine.on(0, leave.get(does, clients.complete))
        machine.time.pass_time(20)
        assert emitter.pending == 1, "it has had the first event for 20 s of its 30"
        machine.time.pass_time(20)
        assert emitter.pending == 0
    finally:
        machine.teardown()
