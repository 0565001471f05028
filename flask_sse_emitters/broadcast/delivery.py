"""How an event reaches all clients of a list.

What is sent to a list is queued in its outbox. One *pass* at a time delivers the outbox: on one pass over the members
all that waits, so that what is sent faster than it can be delivered goes in fewer and larger pieces. The first few
clients are served on the sender's own thread, so small lists need no other; the scheduler serves the rest, in slices,
with breaks for others between them. Where threads are real, only the scheduler's writes to clients that were handed
off: it serves all of them.

Each member notes the last event that it was given. So a stream that cannot wait for the pass, because something else is
to be done with it, takes what is queued by itself, and the pass skips it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic
from typing import Any

from ..runtime.fork import reset_after_fork
from ..runtime.gevent_loop import TIME_SLICE_SECONDS, on_main_loop, pause, yield_if_due
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER
from ..streams.emitter import SseEmitter, stream_of
from ..streams.interfaces import DirectWriter, Registry
from ..wire.frame import Frame
from .batch import Batch, QueuedEvent, first_batch
from .copy_on_write import CopyOnWriteList
from .member import LIVE, Member

#: A sender serves so many clients by itself, and leaves the others to the scheduler.
INLINE_CLIENTS = 100

#: The clock is read after so many clients.
CLIENTS_PER_LOOK = 25

#: Where more events than this, or bytes of them, wait in a list, they are sent faster than this process can deliver
#: them, and senders wait: a millisecond for each so many.
HIGH_WATER_EVENTS, HIGH_WATER_BYTES = 1_000, 16 * 1024 * 1024


#: An outbox that has nothing in it, and takes nothing. A list has one of its own only while something is queued: an
#: empty deque is large beside a list of one client.
_EMPTY: deque[Any] = deque(maxlen=0)

#: What is delivered when there is nothing to deliver.
_NOTHING = Batch((), 0, 0.0)


class Delivery:
    """The members of one list, its outbox, and the pass over them. Every method may be called from any thread."""

    __slots__ = (
        "__weakref__",
        "_batch",
        "_bytes",
        "_delivered",
        "_is_passing",
        "_last_end",
        "_outbox",
        "_position",
        "_removals",
        "_targets",
        "_unmixed_upto",
        "ends",
        "lock",
        "members",
        "number",
        "offset",
    )

    #: Of its channel, where it is the list of one.
    name: str | None = None

    #: Whether what was published before may still be on its way from the broker: so it is for the list of a channel.
    awaits_broker = False

    members: CopyOnWriteList[Member]
    _outbox: deque[QueuedEvent]

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self.lock = native_lock()
        self.members = CopyOnWriteList()
        self.number = 0  #: of the newest event, or end, that was sent
        self.ends = 0  #: so many of these were ends
        self.offset = 0  #: in its channel, of the newest event that has one: all up to there are delivered, or queued
        self._outbox = _EMPTY
        self._bytes = 0  # that are in the outbox
        self._last_end = 0  # the number of the last event that ends streams
        self._removals = 0  # so many members are being taken out
        self._unmixed_upto = 0  # up to this number, one that was taken out may lack what it is still due
        self._is_passing = False  # a pass is under way: who queues something leaves it to that
        self._batch = _NOTHING  # what the pass delivers
        self._targets: tuple[Member, ...] = ()  # to whom
        self._position = 0  # so many of them have been served
        self._delivered = 0  # the number of the newest event that has been

    def find(self, emitter: SseEmitter) -> Member | None:
        """Return the emitter's place in this list; None where it has none."""
        own = (each for each in stream_of(emitter).outgoing.members if each.list is self and isinstance(each, Member))
        return next(own, None)

    def add(self, emitter: SseEmitter) -> None:
        """Put an emitter in the list, until it ends. Idempotent."""
        member = Member(emitter, self)
        if self.enlist(member):
            with self.lock:
                member.go_live(self.number)  # it gets every later event

    def enlist(self, member: Member) -> bool:
        """Put a member in the list, which is not live yet. Return False where its stream has ended, or is here."""
        joins = member.stream.join(member)
        if joins:
            self.members.add(member)
            with self.lock:
                member.joined_at = self.number
            if member.stream.close_reason is not None:  # its end may have come before the list had it
                self.leave(member)
        return joins

    def leave(self, member: Member) -> None:
        """Take out a member whose stream has ended. Idempotent."""
        self.members.remove(member)

    def remove(self, emitter: SseEmitter) -> None:
        """Take an emitter out of the list, and leave its stream open. Idempotent."""
        member = self.find(emitter)
        if member is None:
            return
        with self.lock:
            self._removals += 1
        try:
            member.stream.take_queued()
            member.stream.leave(member)
            self.leave(member)
        finally:
            with self.lock:
                self._removals -= 1
                self._unmixed_upto = self.number

    def go_live(self, member: Member, offset: int) -> bool:
        """Have the member get all that comes, if the list is just at this offset, up to which it has everything."""
        with self.lock:
            if offset != self.offset:
                return False
            delivered_upto = self.number
            if self._last_end > member.joined_at:  # an end that it was there for is still to come to it
                ends = (each.number for each in self._outbox if each.frame is None and each.number > member.joined_at)
                delivered_upto = next(ends, self.number + 1) - 1
            member.go_live(delivered_upto)
            return True

    def complete(self) -> None:
        """End the streams of all members, after all that was sent before. May wait as :meth:`wait_for_room` does."""
        self.put([None])
        self.wait_for_room()

    def sync(self, done: Callable[[], object]) -> None:
        """Call ``done`` once all that was published before has arrived here: at once, where no broker is asked."""
        done()

    def put(self, frames: Sequence[Frame | None]) -> int:
        """Queue events, or with None the end, for all members. Serves the first of them at once; never blocks.

        :return: how many members there are.
        """
        with self.lock:
            members = self.members.snapshot()
            if frames[-1] is not None and frames[-1].offset:
                self.offset = frames[-1].offset
            if not members:
                return 0
            for frame in frames:
                self._append(frame, members)
            begins, self._is_passing = not self._is_passing, True
        if begins:
            self._deliver_inline(members[0])
        return len(members)

    def queued_after(self, number: int) -> list[tuple[int, Frame | None]]:
        """Return what is queued after this number, with its numbers."""
        if not self._outbox:
            return []
        with self.lock:
            known = number + 1 - self._outbox[0].number if self._outbox else 0  # their numbers follow each other
            return [(each.number, each.frame) for each in islice(self._outbox, max(0, known), None)]

    def back_pressure(self) -> float:
        """Return how long a sender should wait, in seconds, so that the delivery keeps up: mostly 0."""
        level = max(len(self._outbox) / HIGH_WATER_EVENTS, self._bytes / HIGH_WATER_BYTES)
        return level / 1000 if level > 1 else 0.0

    def wait_for_room(self) -> None:
        """Let others run, and wait where events are sent faster than they are delivered."""
        if seconds := self.back_pressure():
            pause(seconds)
        else:
            yield_if_due()

    def _append(self, frame: Frame | None, members: tuple[Member, ...]) -> None:
        if self._outbox is _EMPTY:
            outbox: deque[QueuedEvent] = deque()
            if self._outbox is _EMPTY:
                self._outbox = outbox
        queued = QueuedEvent(self.number + 1, frame, members)
        while queued.number != self.number + 1:  # the garbage collector has run a finalizer, which sent as well
            queued = QueuedEvent(self.number + 1, frame, members)
        self.number = queued.number
        self._outbox.append(queued)
        self.ends += queued.event is None
        if frame is None:
            self._last_end = queued.number
        else:
            self._bytes += len(frame.payload)

    def _deliver_inline(self, first: Member) -> None:
        """Deliver to the first clients, unless that is for another thread: see :meth:`.Scheduler.is_writer`."""
        more = True
        try:
            if on_main_loop() and (first.stream.outgoing.direct is None or SCHEDULER.is_writer()):
                more = self._deliver_some(INLINE_CLIENTS)
        finally:  # also after an interrupt of the sender's thread
            if more:
                SCHEDULER.call_soon(self._deliver_slice)

    def _deliver_slice(self) -> bool:
        try:
            return self._deliver_some()
        except BaseException:
            SCHEDULER.call_soon(self._deliver_slice)  # the others must not be forgotten
            raise

    def _deliver_some(self, clients: float = float("inf")) -> bool:
        """Deliver the outbox to so many clients at most, for a slice of time. Only on the main loop.

        :return: whether there is more to deliver.
        """
        slice_ends = monotonic() + TIME_SLICE_SECONDS
        while clients > 0:
            if self._position >= len(self._targets) and not self._begin_pass():
                return False
            block = self._targets[self._position : self._position + CLIENTS_PER_LOOK]
            if self._batch.frames:
                deliver(self._batch, block)
            else:
                for member in block:
                    member.end(self._batch.last, self._batch.channel_end)
            self._position += len(block)
            clients -= len(block)
            if monotonic() > slice_ends:
                break
        return self._position < len(self._targets) or self._begin_pass()

    def _begin_pass(self) -> bool:
        """Take up all that goes on the next pass. Return False where there is nothing, and no pass is under way."""
        with self.lock:
            self._delivered = max(self._delivered, self._batch.last)
            while self._outbox and self._outbox[0].number <= self._delivered:
                delivered = self._outbox.popleft().frame
                self._bytes -= 0 if delivered is None else len(delivered.payload)
            is_unmixed = self._removals > 0 or self._delivered < self._unmixed_upto
            queued = first_batch(self._outbox, is_unmixed=is_unmixed)
            self._batch, self._targets, self._position = _NOTHING, (), 0
            self._is_passing = bool(queued)
            if not queued:
                self._outbox = _EMPTY
                return False  # from here on another thread may begin one
        frames = [event for each in queued if (event := each.event) is not None]
        self._batch = Batch(frames, queued[-1].number, SCHEDULER.clock(), None if frames else queued[-1].frame)
        self._targets = queued[-1].members
        return True


def deliver(batch: Batch, members: tuple[Member, ...]) -> None:
    """Give each what it lacks of the batch: to a client that waits for it at once, as one write of ready-made bytes."""
    data, size = batch.chunk, len(batch.chunk)
    is_writer = SCHEDULER.is_writer()
    may_write = is_writer and batch.is_small
    written, registry = 0, None  # what counts the written ones: mostly one for all of them
    for member in members:
        client = None
        if member.client is not None and may_write:
            with member.lock:
                is_next = member.state is LIVE and member.delivered_upto < batch.first
                if is_next and (client := member.client) is not None:
                    member.delivered_upto = batch.last
                    member.written_at = batch.when
        if client is None:
            member.deliver(batch, is_writer=is_writer)
            continue
        try:
            sent = client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            _writer_of(member).lose(error)
            continue
        if sent < size:
            _writer_of(member).keep(data, sent)
        if registry is not member.stream.registry:
            _count(batch, written, registry)
            written, registry = 0, member.stream.registry
        written += 1
    _count(batch, written, registry)


def _count(batch: Batch, clients: int, registry: Registry | None) -> None:
    if registry is not None:
        registry.traffic.count(clients * batch.events, clients * len(batch.payload))


def _writer_of(member: Member) -> DirectWriter:
    writer = member.stream.outgoing.direct
    assert writer is not None  # only it gives up a client, and on this very thread
    return writer
