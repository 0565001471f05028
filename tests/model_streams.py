"""What emitters and lists are to do, said as simply as that can be: one thread, no locks, and no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask_sse_emitters import CloseReason

from .model_stage import FOLLOWING

ATTACH_SECONDS = 30.0

#: A client that takes nothing is looked at now and then: so late it is found at the latest.
WRITE_SECONDS, AT_THE_LATEST = 30.0, 37.5

CUT = (CloseReason.DISCONNECTED, CloseReason.OVERFLOW)


@dataclass(eq=False)
class ModelEmitter:
    born: float
    timeout: float
    max_pending: int
    overflow: str
    reason: CloseReason | None = None
    queue: list[tuple[str, str]] = field(default_factory=list)  # names and texts that are pending
    handed: list[str] = field(default_factory=list)  # is taken first, and not pending
    got: list[str] = field(default_factory=list)
    dropped: int = 0
    is_attached: bool = False
    has_app: bool = False  # when it ended: its callbacks have that app's context
    is_streaming: bool = False
    is_direct: bool = False
    is_idle: bool = False
    is_counted: bool = False  # among the open streams
    left_at: float | None = None
    busy_since: float | None = None
    callbacks: list[tuple[str, int]] = field(default_factory=list)
    called: list[tuple[str, int]] = field(default_factory=list)  # in the end
    served: dict[ModelList, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        return len(self.queue) + sum(len(frames(each.outstanding(self))) for each in self.served)

    def send(self, name: str, text: str) -> bool:
        self.catch_up()
        return self.reason is None and self._push([(name, text)])

    def complete(self, reason: CloseReason = CloseReason.COMPLETED) -> None:
        self.catch_up()
        self.end(reason)

    def end(self, reason: CloseReason) -> None:
        if self.reason is not None:
            return
        self.reason, self.has_app = reason, self.is_attached
        self.is_idle = False
        self.called += [each for kind in FOLLOWING[reason] for each in self.callbacks if each[0] == kind]
        if reason in CUT:
            self.queue, self.handed = [], []
        for each in list(self.served):
            each.remove(self)
        if not self.is_streaming:
            self.is_counted = False

    def register(self, kind: str, number: int) -> None:
        if self.reason is None:
            self.callbacks.append((kind, number))
        elif kind in FOLLOWING[self.reason]:
            self.called.append((kind, number))

    def take(self, now: float) -> list[str] | None:
        """What its outlet gets; nothing where it is to sleep; None at the end."""
        if self.handed or self.queue:
            taken = self.handed or [text for _, text in self.queue]
            if self.handed:
                self.handed = []
            else:
                self.queue = []
            self.busy_since = now
            self.got += taken
            return taken
        self.busy_since = None
        self.is_idle = self.reason is None
        return [] if self.is_idle else None

    def catch_up(self, besides: ModelList | None = None) -> None:
        """Have what its lists were given before anything else."""
        ends = False
        for each in [each for each in self.served if each is not besides]:
            if each not in self.served:  # what another one brought was too much
                return
            errands = each.outstanding(self)
            before_end = errands[: errands.index(None)] if None in errands else errands
            ends = ends or None in errands
            self.served[each] = each.number
            events = frames(before_end)
            if events and self.reason is None:
                if self.is_idle:
                    self.handed, self.is_idle = [text for _, text in events], False
                else:
                    self._push(events)
        if ends:
            self.end(CloseReason.COMPLETED)

    def deliver(self, events: list[tuple[str, str]], now: float, *, is_whole: bool) -> None:
        """What somebody walks up with: a batch, or what of it is still missing."""
        texts = [text for _, text in events]
        if self.reason is not None or not events:
            return
        if not self.is_idle:
            self._push(events)
        elif self.is_direct and is_whole:
            self.got += texts
        else:
            self.got += texts
            self.is_idle, self.busy_since = False, now

    def let_go(self) -> None:
        self.end(CloseReason.DISCONNECTED)
        self.queue, self.handed = [], []
        self.is_streaming = self.is_counted = False

    def ends_at(self) -> tuple[float, CloseReason] | None:
        """What time brings for certain."""
        deadlines = []
        if self.timeout:
            deadlines.append((self.born + self.timeout, 0, CloseReason.TIMEOUT))
        if not self.is_streaming:
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


Errand = tuple[str, str] | None  # None ends the streams


def frames(errands: list[Errand]) -> list[tuple[str, str]]:
    return [errand for errand in errands if errand is not None]


class ModelList:
    def __init__(self) -> None:
        self.members: list[ModelEmitter] = []
        self.number = 0
        self.outbox: list[tuple[int, Errand, tuple[ModelEmitter, ...]]] = []
        self.is_carried = False  # in the background, soon

    def add(self, emitter: ModelEmitter) -> None:
        if emitter.reason is None and emitter not in self.members:
            self.members.append(emitter)
            emitter.served[self] = self.number

    def remove(self, emitter: ModelEmitter) -> None:
        if emitter in self.members:
            self.members.remove(emitter)
            del emitter.served[self]

    def put(self, errand: Errand, now: float, on_main_loop: bool) -> int:
        if not self.members:
            return 0
        count = len(self.members)
        self.number += 1
        self.outbox.append((self.number, errand, tuple(self.members)))
        if not self.is_carried and on_main_loop:
            self.walk(now)
        else:
            self.is_carried = True
        return count

    def outstanding(self, emitter: ModelEmitter) -> list[Errand]:
        return [errand for number, errand, _ in self.outbox if number > emitter.served[self]]

    def walk(self, now: float) -> None:
        """Carry all that there is, in batches that go to the clients of the last."""
        while self.outbox:
            first = self.outbox[0]
            batch = [first]
            for other in self.outbox[1:]:
                if None in (first[1], other[1]):
                    break
                batch.append(other)
            for emitter in batch[-1][2]:
                self._serve(emitter, batch, now)
            del self.outbox[: len(batch)]
        self.is_carried = False

    def _serve(
        self, emitter: ModelEmitter, batch: list[tuple[int, Errand, tuple[ModelEmitter, ...]]], now: float
    ) -> None:
        if self not in emitter.served or emitter.served[self] >= batch[-1][0]:
            return
        served, emitter.served[self] = emitter.served[self], batch[-1][0]
        if batch[0][1] is None:
            emitter.catch_up(besides=self)
            emitter.end(CloseReason.COMPLETED)
        else:
            missing = frames([errand for number, errand, _ in batch if number > served])
            emitter.deliver(missing, now, is_whole=len(missing) == len(batch))
