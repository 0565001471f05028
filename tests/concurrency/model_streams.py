"""Model emitters and lists as simply as possible: one thread, no locks, no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask_sse_emitters import CloseReason
from tests.concurrency.stage import FOLLOWING

ATTACH_SECONDS = 30.0

CUT = (CloseReason.DISCONNECTED, CloseReason.OVERFLOW)


@dataclass(eq=False)
class ModelEmitter:
    born: float
    timeout: float
    max_pending: int
    overflow: str
    reason: CloseReason | None = None
    queue: list[tuple[str, str]] = field(default_factory=list)  # pending names and texts
    in_flight: list[str] = field(default_factory=list)  # taken first, and not pending
    got: list[str] = field(default_factory=list)
    dropped: int = 0
    is_attached: bool = False
    has_app: bool = False  # when it ended: its callbacks have that app's context
    is_streaming: bool = False  # and so counts as open
    is_direct: bool = False
    is_idle: bool = False
    callbacks: list[tuple[str, int]] = field(default_factory=list)
    called: list[tuple[str, int]] = field(default_factory=list)  # in the end
    delivered_upto: dict[ModelList, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        return len(self.queue) + sum(len(frames(each.undelivered(self))) for each in self.delivered_upto)

    def send(self, name: str, text: str) -> bool:
        self.catch_up()
        return self.reason is None and self._push([(name, text)])

    def complete(self, reason: CloseReason = CloseReason.COMPLETED) -> None:
        self.catch_up()
        self.end(reason)

    def end(self, reason: CloseReason) -> None:
        if self.reason is not None:
            if reason in CUT:
                self.queue, self.in_flight = [], []
            return
        self.reason, self.has_app = reason, self.is_attached
        self.is_idle = False
        self.called += [each for kind in FOLLOWING[reason] for each in self.callbacks if each[0] == kind]
        if reason in CUT:
            self.queue, self.in_flight = [], []
        for each in list(self.delivered_upto):
            each.remove(self)

    def register(self, kind: str, number: int) -> None:
        if self.reason is None:
            self.callbacks.append((kind, number))
        elif kind in FOLLOWING[self.reason]:
            self.called.append((kind, number))

    def take(self) -> list[str] | None:
        """Return what its writer gets: an empty list if it is to sleep, None at the end."""
        if self.in_flight or self.queue:
            taken = self.in_flight or [text for _, text in self.queue]
            if self.in_flight:
                self.in_flight = []
            else:
                self.queue = []
            self.got += taken
            return taken
        self.is_idle = self.reason is None
        return [] if self.is_idle else None

    def catch_up(self, besides: ModelList | None = None) -> None:
        """Take what its lists have queued before anything else."""
        ends = False
        for each in [each for each in self.delivered_upto if each is not besides]:
            if each not in self.delivered_upto:  # another list's events overflowed it
                return
            queued = each.undelivered(self)
            before_end = queued[: queued.index(None)] if None in queued else queued
            ends = ends or None in queued
            self.delivered_upto[each] = each.number
            events = frames(before_end)
            if events and self.reason is None:
                if self.is_idle:
                    self.in_flight, self.is_idle = [text for _, text in events], False
                else:
                    self._push(events)
        if ends:
            self.end(CloseReason.COMPLETED)

    def deliver(self, events: list[tuple[str, str]], *, is_whole: bool) -> None:
        """Receive a batch from a delivery pass, or the part of it that is still missing."""
        if self.reason is not None or not events:
            return
        if self.is_idle:
            self.got += [text for _, text in events]
            self.is_idle = self.is_direct and is_whole
        else:
            self._push(events)

    def disconnect(self) -> None:
        self.end(CloseReason.DISCONNECTED)
        self.queue, self.in_flight = [], []
        self.is_streaming = False

    def ends_at(self) -> tuple[float, CloseReason] | None:
        """Return when and why it ends by time, if nothing else ends it."""
        deadlines = []
        if self.timeout:
            deadlines.append((self.born + self.timeout, 0, CloseReason.TIMEOUT))
        if not self.is_attached:
            deadlines.append((self.born + ATTACH_SECONDS, 1, CloseReason.ERROR))
        when, _, reason = min(deadlines, default=(0.0, 0, None))
        return None if reason is None or self.reason is not None else (when, reason)

    def _push(self, events: list[tuple[str, str]]) -> bool:
        self.is_idle = False
        for name, text in events:
            if self.overflow == "coalesce":
                kept = [each for each in self.queue if each[0] != name]
                self.dropped += len(self.queue) - len(kept)
                self.queue = kept
            if len(self.queue) >= self.max_pending:
                if self.overflow != "drop_oldest":
                    self.end(CloseReason.OVERFLOW)
                    return False
                self.queue.pop(0)
                self.dropped += 1
            self.queue.append((name, text))
        return True


Queued = tuple[str, str] | None  # None ends the streams


def frames(queued: list[Queued]) -> list[tuple[str, str]]:
    return [event for event in queued if event is not None]


class ModelList:
    def __init__(self) -> None:
        self.members: tuple[ModelEmitter, ...] = ()
        self.number = 0
        self.unmixed_upto = 0  # up to this number, a batch has only what was sent to the very same members
        self.outbox: list[tuple[int, Queued, tuple[ModelEmitter, ...]]] = []
        self.is_pass_due = False  # in the background, soon

    def add(self, emitter: ModelEmitter) -> None:
        if emitter.reason is None and emitter not in self.members:
            self.members = (*self.members, emitter)
            emitter.delivered_upto[self] = self.number

    def remove(self, emitter: ModelEmitter) -> None:
        if emitter in self.members:
            self.members = tuple(each for each in self.members if each is not emitter)
            del emitter.delivered_upto[self]

    def take_out(self, emitter: ModelEmitter) -> None:
        """Remove a member that goes on: it gets what was sent before."""
        if emitter in self.members:
            emitter.catch_up()
            self.remove(emitter)
            self.unmixed_upto = self.number

    def put(self, event: Queued, on_main_loop: bool) -> int:
        if not self.members:
            return 0
        count = len(self.members)
        self.number += 1
        self.outbox.append((self.number, event, self.members))
        if not self.is_pass_due and on_main_loop:
            self.deliver_all()
        else:
            self.is_pass_due = True
        return count

    def undelivered(self, emitter: ModelEmitter) -> list[Queued]:
        return [event for number, event, _ in self.outbox if number > emitter.delivered_upto[self]]

    def deliver_all(self) -> None:
        """Deliver all queued events, in batches that go to the clients of the last event."""
        while self.outbox:
            first = self.outbox[0]
            batch = [first]
            is_unmixed = first[0] <= self.unmixed_upto
            for other in self.outbox[1:]:
                if None in (first[1], other[1]) or (is_unmixed and other[2] is not first[2]):
                    break
                batch.append(other)
            for emitter in batch[-1][2]:
                self._deliver_batch(emitter, batch)
            del self.outbox[: len(batch)]
        self.is_pass_due = False

    def _deliver_batch(self, emitter: ModelEmitter, batch: list[tuple[int, Queued, tuple[ModelEmitter, ...]]]) -> None:
        if self not in emitter.delivered_upto or emitter.delivered_upto[self] >= batch[-1][0]:
            return
        delivered_upto, emitter.delivered_upto[self] = emitter.delivered_upto[self], batch[-1][0]
        if batch[0][1] is None:
            emitter.catch_up(besides=self)
            emitter.end(CloseReason.COMPLETED)
        else:
            missing = frames([event for number, event, _ in batch if number > delivered_upto])
            emitter.deliver(missing, is_whole=len(missing) == len(batch))
