"""What this process gets from one that stops, and who waits for that.

Channel after channel comes. Until all are there, a channel that is not known here may be known there: it is *held*.
Who publishes to it waits, and its clients begin once it is there, or it is clear that there was none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from ....errors import BrokerUnavailable
from ....runtime.calls import weakly
from ....runtime.gevent_loop import wait_while
from ....runtime.locks import native_lock
from ....runtime.scheduler import Scheduler
from ...base import Listener
from ..record import Record
from ..record_state import RecordState
from ..records import Records

#: A process that stops is believed to be dead where nothing of its channels has come for so long.
SILENCE_SECONDS = 5.0

#: What is late by so much does not come: the thread that waits for it is the one that was to do it.
MARGIN_SECONDS = 1.0

T = TypeVar("T")


class Inheritance:
    """The channels that another process gives to this one. Any thread may call; :meth:`wait` alone waits.

    :param records: which it fills.
    """

    def __init__(self, records: Records, scheduler: Scheduler) -> None:
        self._records = records
        self._scheduler = scheduler
        self._lock = native_lock()
        self._until = -math.inf  # what is held, is held until then
        self._look_at = math.inf  # when a timer looks whether that is over
        self._listeners: dict[str, list[Listener]] = {}  # that are to begin, by channel
        self._beginning: set[Listener] = set()  # that are being added, until they are forgotten
        self._calls: dict[str, list[Callable[[], object]]] = {}  # to make then

    def expect(self, seconds: float) -> None:
        """Hold all channels that are not known here for so long, or until the other process has given its last."""
        self._until = self._scheduler.clock() + seconds
        self._records.is_held = True
        if self._until < self._look_at:
            self._look_at = self._until
            self._scheduler.call_at(self._until, weakly(self._look))

    def expect_soon(self, seconds: float) -> None:
        """Hold them for so long at most from now on, if they are held."""
        if self._records.is_held:
            self.expect(seconds)

    def take(self, state: RecordState, listener: Listener | None = None) -> None:
        """Take over a channel. Where it has one here, what was published here comes after what was there.

        Clients that have come here to that then reconnect, and miss nothing: their position was in another log.

        :param listener: gets each event that follows on what there was; none where there is a channel here.
        """
        self.expect(SILENCE_SECONDS)
        new = Record.restore(state, self._scheduler)
        if listener is not None:
            new.audience.listeners = (listener,)
        while (record := self._records.put(new)) is not new and not record.inherit(state):
            pass  # that one is forgotten by now
        self._records.go_on(record)
        self._begin(state.name)

    def end(self) -> None:
        """Hold nothing any more: all has come, or nothing more will. Idempotent."""
        self._until = -math.inf
        self._records.is_held = False
        for channel in [*self._listeners, *self._calls]:
            self._begin(channel)

    def wait(self, channel: str) -> None:
        """Wait until a channel is not held any more.

        :raises BrokerUnavailable: where this thread cannot wait, as it has to take over the channel.
        """
        clock = self._scheduler.clock
        wait_while(lambda: self._records.holds(channel) and clock() < self._until + MARGIN_SECONDS, math.inf)
        if self._records.holds(channel):
            raise BrokerUnavailable("the channel is about to come from a worker that stops", may_be_published=False)

    def begin_later(self, channel: str, listener: Listener) -> bool:
        """Have a listener begin once the channel is not held any more. Return False where it is not."""
        return self._keep(self._listeners, channel, listener)

    def call_later(self, channel: str, call: Callable[[], object]) -> bool:
        """Make this call then. Return False where the channel is not held."""
        return self._keep(self._calls, channel, call)

    def forget(self, channel: str, listener: Listener) -> None:
        """Do not have this listener begin. Idempotent."""
        with self._lock:
            self._beginning.discard(listener)
            waiting = self._listeners.get(channel, [])
            self._listeners[channel] = [each for each in waiting if each is not listener]
            if not self._listeners[channel]:
                del self._listeners[channel]

    def _look(self) -> None:
        now = self._scheduler.clock()
        if now >= self._look_at:  # else a later timer: there was an earlier one
            self._look_at = math.inf
        if self._until <= now:
            self.end()
        elif self._look_at == math.inf:
            self.expect(self._until - now)

    def _keep(self, waiting: dict[str, list[T]], channel: str, item: T) -> bool:
        with self._lock:
            waiting.setdefault(channel, []).append(item)
        if self._records.holds(channel):
            return True
        with self._lock:  # that has just ended
            left = waiting.get(channel, [])
            is_left = any(each is item for each in left)
            waiting[channel] = [each for each in left if each is not item]
            if not waiting[channel]:
                del waiting[channel]
        return not is_left

    def _begin(self, channel: str) -> None:
        with self._lock:
            listeners, calls = self._listeners.pop(channel, []), self._calls.pop(channel, [])
            self._beginning.update(listeners)
        for listener in listeners:
            start = self._records.use(channel, lambda record: record.add(listener))  # noqa: B023 - called at once
            with self._lock:
                is_wanted = listener in self._beginning
                self._beginning.discard(listener)
            if is_wanted:
                listener.started(start)
            else:  # it was to be forgotten before it was there
                self._records.remove(channel, listener)
        for call in calls:
            self._records.find(channel).audience.when_delivered(call)
