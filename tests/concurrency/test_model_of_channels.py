"""A channel and its readers beside a simple model: each event once, in order, and a gap for lost ones."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from tests.concurrency.model_machine import QUICK, BaseMachine, picks, workers
from tests.unit.doubles.writer import FakeWriter


class Reader:
    """A reader of a channel over one stream after the other, and what it knows."""

    def __init__(self, last: str | None, at: int) -> None:
        self.last = last  # its Last-Event-ID
        self.at = at  # the offset of the newest event that it has
        self.needs_gap = False  # its id is unknown or too old: it must get a gap
        self.emitter: SseEmitter | None = None
        self.writer: FakeWriter | None = None
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
        reader.writer = self.on(worker, lambda: FakeWriter(emitter, direct=direct))

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


Readers.TestCase.settings = QUICK
TestChannels = Readers.TestCase
