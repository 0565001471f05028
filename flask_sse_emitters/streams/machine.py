"""The life of one client's stream, as a state machine that knows neither Flask nor sockets.

A stream is in one of five phases, and only ever goes forwards:

* *waiting*: it takes events, but no writer has its client yet. The attach deadline runs.
* *streaming*: a writer has the client, and takes what to write until there is nothing. Then it is idle until it is
  woken, or until a list writes to its client directly. Heartbeats run, and the deadline of a client that takes nothing.
* *ending*: ``close_reason`` is set, but what was published to its channels before is still on its way from the broker.
  It stays in the lists of these channels until that has arrived, for its lifetime at most.
* *ended*: it takes nothing more. The writer may still be writing what was pending.
* *drained*: the writer has let go of the client, or has been told that nothing more will come.

It ends once: :data:`.ENDS` says what follows. Whatever ends it takes it out of its lists, wakes or cuts its writer, and
sends the callbacks to the scheduler.

Lists deliver in the background. So what an app does with an emitter first takes what its lists have been sent before:
no caller can tell that it had not been delivered yet.

The lifetime runs from the beginning. One timer carries all deadlines: see :mod:`.streams.timing.deadlines`.

What stands below ``with self.lock`` is a few statements; callbacks, writers, lists and the scheduler are called without
it.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import replace
from enum import IntEnum
from typing import Any

from ..config.settings import Settings
from ..errors import CloseReason
from ..runtime.calls import Countdown
from ..runtime.locks import striped_lock
from ..runtime.scheduler import Scheduler
from .ends import ENDS, Callbacks, ClientSees, Pending
from .interfaces import Member, Producer, Registry, Writer
from .outgoing import IDLE, Outgoing
from .pending.room import Room
from .registry.identity import Reader
from .registry.stream_log import log_end
from .timing.deadlines import Deadlines


class Phase(IntEnum):
    """How far a stream is: see the head of this module."""

    WAITING = 0
    STREAMING = 1
    ENDING = 2
    ENDED = 3
    DRAINED = 4


WAITING, STREAMING, ENDING, ENDED, DRAINED = Phase

#: The phases that may follow each.
STEPS = {
    WAITING: (STREAMING, ENDING, ENDED),
    STREAMING: (ENDING, ENDED),
    ENDING: (ENDED,),
    ENDED: (DRAINED,),
    DRAINED: (),
}


class Machine(ABC):
    """The phases of one stream. Every method may be called from any thread, and none blocks.

    :param settings: the values that hold for it.
    :param last_event_id: what the client received last, as it says; None where no request has been asked yet.
    :ivar address: of its client; None where no limit depends on it.
    :ivar reader: whose stream it is; None where that is unknown.
    :ivar limits: the limits that it counts against: those of its channels, and all of them once it is open.
    :ivar producer: pulls items into it; None where none does, or there is no item left.
    :ivar room: those who wait for its client to take something; None where nobody has.
    :ivar registry: counts it; None until a response carries it, or its reader is known.
    :ivar client_sees: how it ended, for its client; None while it is open.
    """

    __slots__ = (
        "__weakref__",
        "_is_attached",
        "address",
        "callbacks",
        "client_sees",
        "close_reason",
        "deadlines",
        "error",
        "last_event_id",
        "limits",
        "lock",
        "outgoing",
        "phase",
        "producer",
        "reader",
        "registry",
        "room",
        "scheduler",
        "settings",
    )

    def __init__(self, settings: Settings, last_event_id: str | None, scheduler: Scheduler) -> None:
        self.settings = settings
        self.last_event_id = last_event_id
        self.scheduler = scheduler
        self.lock = striped_lock()
        self.phase: Phase = WAITING
        self.close_reason: CloseReason | None = None
        self.client_sees: ClientSees | None = None
        self.error: BaseException | None = None
        self.address: str | None = None
        self.reader: Reader | None = None
        self.limits: tuple[Any, ...] = ()
        self.outgoing = Outgoing()
        self.callbacks = Callbacks(scheduler, self.lock)
        self.deadlines = Deadlines(scheduler.clock(), settings)
        self._is_attached = False  # a response carries it
        self.room: Room | None = None
        self.producer: Producer | None = None
        self.registry: Registry | None = None
        self.deadlines.set_timer(self)

    def __repr__(self) -> str:
        state = "open" if self.close_reason is None else self.close_reason.name
        return f"<SseEmitter {id(self):#x} {state}, {self.pending} pending>"

    @property
    def takes_events(self) -> bool:
        """Whether lists may still give it events."""
        return self.phase < ENDED

    @property
    def pending(self) -> int:
        """How many events wait for the client, also in the outboxes of its lists."""
        return len(self.outgoing.backlog) + sum(member.queued_events for member in self.outgoing.members)

    def take_queued(self) -> None:
        """Take what the lists have been sent and not delivered; end if one of them has ended the stream."""
        members = self.outgoing.members
        if not members:
            return
        for member in members:
            member.take_queued()
        if any(member.is_over for member in members):
            self._end(CloseReason.COMPLETED, closing=self.settings.final_block)
        elif any(member.has_ended for member in members):
            self._end(CloseReason.COMPLETED, awaits_channels=True)

    def end(
        self,
        reason: CloseReason,
        error: BaseException | None = None,
        *,
        pending: Pending | None = None,
        closing: bytes = b"",
        awaits_channels: bool = False,
        sees: ClientSees | None = None,
    ) -> bool:
        """End the stream. Idempotent: the first end counts. A later one only cuts short what the first waits for.

        :param pending: what happens to what has not been taken yet; None is as :data:`.ENDS` says.
        :param closing: follows what is pending, where that is still written.
        :param awaits_channels: what was published to its channels before counts as pending, also where it has not
            arrived here yet.
        :param sees: what its client sees of it; None is as :data:`.ENDS` says.
        :return: whether this is the end that counts.
        """
        pending = pending or ENDS[reason].pending
        if pending == "write":
            self.take_queued()
        is_first = self._end(reason, error, pending, closing, awaits_channels=awaits_channels, sees=sees)
        if not is_first and not awaits_channels:
            self._stop_awaiting(pending, closing)
        if not is_first and ENDS[reason].client_sees == "nothing" and (writer := self.outgoing.writer) is not None:
            writer.cut()
        return is_first

    def release(self, error: BaseException) -> None:
        """Note that the writer has let go of the client: because of this error, if the stream has not ended yet."""
        self._end(CloseReason.DISCONNECTED, error)
        self._drain()
        self._leave_registry()

    def count(self, events: int, size: int, *, replayed: bool = False) -> None:
        """Count what the client is given: events, and bytes."""
        if self.registry is not None:
            self.registry.traffic.count(events, size, replayed=replayed)

    @abstractmethod
    def next_deadline(self) -> float | None:
        """Return when the next deadline may be due; None where nothing is waited for. Under the lock."""

    @abstractmethod
    def on_timer(self) -> None:
        """Do what is due. Only the scheduler calls this."""

    def _end(
        self,
        reason: CloseReason,
        error: BaseException | None = None,
        pending: Pending | None = None,
        closing: bytes = b"",
        *,
        awaits_channels: bool = False,
        sees: ClientSees | None = None,
    ) -> bool:
        rule, outgoing = ENDS[reason], self.outgoing
        with self.lock:
            if self.close_reason is not None:
                return False
            self.error = error
            self.close_reason = reason
            self.client_sees = sees = sees or rule.client_sees
            outgoing.closing = closing
            outgoing.drop(pending or rule.pending)
            writer = outgoing.writer
            busy = None if outgoing.state is IDLE else writer
            channels = tuple(each for each in outgoing.members if awaits_channels and each.list.awaits_broker)
            awaited = tuple(each for each in channels if not each.has_ended)  # a list that ends it was in time itself
            sleeper, left = self._stop_taking(channels if awaited else (), is_synced=awaits_channels)
            if awaited:
                self._go(ENDING)
                # Take no more than what was published until now, which has no bounds but the broker's.
                self.settings = replace(self.settings, max_pending=sys.maxsize, max_pending_bytes=sys.maxsize)
        log_end(self, left, reason, error)
        self._part(sleeper, left)
        if busy is not None and sees in ("cut", "nothing"):
            busy.cut()
        if awaited:
            on_synced = Countdown(len(awaited), self._on_synced)
            for member in awaited:
                member.list.sync(on_synced)
        if writer is None:  # none will say so
            self._leave_registry()
        self._tell_of_end(reason, error)
        return True

    def _tell_of_end(self, reason: CloseReason, error: BaseException | None) -> None:
        """Tell all who wait for the end, or for the client."""
        self.callbacks.release(reason, error, self.settings.context)
        if self.room is not None:
            self.room.notify()
        if self.producer is not None:
            self.producer.start()
        self.deadlines.set_timer(self)

    def _go(self, phase: Phase) -> None:
        """Enter a phase. Under the lock.

        :raises RuntimeError: where that is no step forwards.
        """
        if phase not in STEPS[self.phase]:
            raise RuntimeError(f"illegal step: a stream that is {self.phase.name} cannot be {phase.name}")
        self.phase = phase

    def _on_synced(self) -> None:
        """Write what the channels have got for it, and then the end."""
        for member in self.outgoing.members:
            member.take_queued()
        with self.lock:
            sleeper, left = self._stop_taking((), is_synced=True)
        self._part(sleeper, left)
        self.deadlines.set_timer(self)

    def _stop_awaiting(self, pending: Pending, closing: bytes) -> None:
        """Wait no longer, after the end, for what has not arrived here: write what is there, and the end."""
        with self.lock:
            if self.phase is ENDING:
                self.outgoing.closing = closing
            self.outgoing.drop(pending)
            sleeper, left = self._stop_taking(())
        self._part(sleeper, left)
        self.deadlines.set_timer(self)

    def _drain(self) -> None:
        with self.lock:
            _, left = self._stop_taking(())
            self.outgoing.release()
            if self.phase is not DRAINED:
                self._go(DRAINED)
            timer, self.deadlines.timer = self.deadlines.timer, None
        self._part(None, left)
        if timer is not None:
            self.scheduler.cancel(timer)

    def _stop_taking(
        self, staying: tuple[Member, ...], *, is_synced: bool = False
    ) -> tuple[Writer | None, tuple[Member, ...]]:
        """Take no more from lists, and nothing new from replay. Under the lock, after the end.

        :param staying: the places in lists that it keeps; where there are any, it goes on taking.
        :param is_synced: what replay reads has all that was published before the end.
        :return: the writer to wake, and the places to leave, once the lock is left: see :meth:`_part`.
        """
        sleeper, outgoing = None, self.outgoing
        if not staying:
            if self.takes_events:
                self._go(ENDED)
            if outgoing.replay is not None:
                outgoing.replay.end(is_synced=is_synced)
                outgoing.replay.has_more = True  # its last answer, that there is nothing, may not have been heeded yet
            sleeper = outgoing.wake()
        return sleeper, self._keep_members(staying)

    def _keep_members(self, staying: tuple[Member, ...]) -> tuple[Member, ...]:
        """Give up all places in lists but these, and return them. Under the lock.

        What a list has written to the client itself counts for the write timeout from then on.
        """
        left = self.outgoing.keep_members(staying)
        self.deadlines.written = max([self.deadlines.written, *(member.written_at for member in left)])
        return left

    def _part(self, sleeper: Writer | None, left: tuple[Member, ...]) -> None:
        for member in left:
            member.list.leave(member)
        if sleeper is not None:
            sleeper.wake()

    def _leave_registry(self) -> None:
        if self.registry is not None:
            self.registry.leave(self)
