"""The channels that are kept in memory, and when to look at each for what is too old."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from ...runtime.calls import weakly
from ...runtime.locks import native_lock
from ...runtime.scheduler import Scheduler
from ..base import Listener
from .agenda import Agenda
from .record import Record

#: So many channels are looked at in one go.
CHANNELS_PER_SLICE = 100

T = TypeVar("T")


class ChannelHeld(Exception):
    """It is not known yet whether the channel comes from another process."""


class Records(Mapping[str, Record]):
    """The records of channels, by name. Any thread may call.

    One that nobody listens to is forgotten once nothing is kept of it: see :meth:`.Record.look`.

    :param scheduler: keeps the time, for the age of events and keys.
    :ivar is_held: none is made now: see :mod:`.inheritance`.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.is_held = False
        self._makes_frozen = False  # another process has all channels: see handover.py
        self._lock = native_lock()
        self._records: dict[str, Record] = {}
        self._agenda: Agenda[Record] = Agenda()  # when to look at channels
        self._timer_at = math.inf  # when the next timer calls
        self._due: list[Record] = []  # to be looked at now

    def use(self, channel: str, call: Callable[[Record], T | None]) -> T:
        """Call this with the record of a channel, made where there is none, and deliver what it has published.

        :param call: returns None where the record is forgotten: it is called again, with another.
        """
        result = None
        while result is None:
            record = self.find(channel)
            result = call(record)
        self.go_on(record)
        return result

    def find(self, channel: str) -> Record:
        """Return the record of a channel, made where there is none.

        :raises ChannelHeld: where none can be made now.
        """
        record = self._records.get(channel)
        if record is None or record.is_forgotten:
            new = Record(channel, self._scheduler)
            with self._lock:
                self._forget(channel)
                if self.holds(channel):
                    raise ChannelHeld
                new.is_frozen = self._makes_frozen
                record = self._records.setdefault(channel, new)
        return record

    def holds(self, channel: str) -> bool:
        """Return whether nobody can know now what there is of a channel."""
        return self.is_held and channel not in self._records

    def put(self, record: Record) -> Record:
        """Let this be the record of its channel, unless there is one. Return the one that there is now."""
        with self._lock:
            self._forget(record.name)
            return self._records.setdefault(record.name, record)

    def remove(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more of a channel to the listener."""
        record = self._records.get(channel)
        if record is not None:
            record.remove(listener)
            self.look_later(record)

    def renew_members(self, until: float) -> None:
        """Have the members that another process has count until then."""
        with self._lock:
            found = list(self._records.values())
        for record in found:
            with record.log.guard:
                if record.members is not None:
                    record.members.renew(until)

    def not_frozen(self) -> list[Record]:
        """Return those that are not frozen. Once there is none, new ones are so from the beginning."""
        with self._lock:
            found = [each for each in self._records.values() if not (each.is_frozen or each.is_forgotten)]
            self._makes_frozen = not found
            return found

    def thaw(self) -> None:
        """Have events published again."""
        with self._lock:
            self._makes_frozen = False
            found = list(self._records.values())
        for record in found:
            record.thaw()
            self.look_later(record)

    def go_on(self, record: Record) -> None:
        """Deliver what is new in a record, and look at it when something of it is too old."""
        self.look_later(record)
        record.audience.deliver()

    def look_later(self, record: Record) -> None:
        """Look at a record when the next of what it keeps is too old."""
        if record.may_be_due_sooner:
            record.may_be_due_sooner = False  # first: what happens from here on sets it again
            with self._lock:
                self._agenda.add(record, record.due)
                is_first = self._agenda.due < self._timer_at
            if is_first:
                self._set_timer()

    def clear(self) -> None:
        """Forget all channels."""
        with self._lock:
            self._records.clear()

    def __getitem__(self, channel: str) -> Record:
        return self._records[channel]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def _forget(self, channel: str) -> None:
        record = self._records.get(channel)
        if record is not None and record.is_forgotten:
            del self._records[channel]

    def _set_timer(self) -> None:
        with self._lock:
            when, before = self._agenda.due, self._timer_at
            self._timer_at = min(when, before)
        if when < before:
            self._scheduler.call_at(when, weakly(self._look))

    def _look(self) -> None:
        now = self._scheduler.clock()
        with self._lock:
            self._due += self._agenda.take_due(now)
            self._timer_at = math.inf if self._timer_at <= now else self._timer_at  # it may be a later one that calls
        self._set_timer()
        self._scheduler.call_soon(self._look_at_some)

    def _look_at_some(self) -> bool:
        for _ in range(CHANNELS_PER_SLICE):
            with self._lock:
                if not self._due:
                    return False
                record = self._due.pop()
            if record.look():
                self.go_on(record)
            elif record.is_forgotten:
                with self._lock:
                    self._forget(record.name)
        return True
