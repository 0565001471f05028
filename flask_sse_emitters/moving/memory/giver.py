"""The worker that stops: it gives its channels away, and has the other one do what is asked of them from then on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ...brokers.memory import MemoryBroker
from ...brokers.memory.moves.handover import Reply, Request
from ...brokers.memory.record_state import RecordState
from ...errors import BrokerUnavailable
from ...runtime.scheduler import SCHEDULER, Scheduler
from ..protocol.messages import MemoryMessage
from .items import WallTimes, items_of_request, items_of_state, read_answer, read_event
from .outlet import Outlet, Send
from .packets import Packer, Unpacker, pack

#: A channel that is to come from another worker is awaited, and looked for again after so long.
LOOK_SECONDS = 0.01

#: Items are turned into JSON so many at a time.
ITEMS_AT_ONCE = 200

_Done = Callable[[Reply], object]


class MemoryGiver:
    """Gives the channels of a broker to another worker. On the scheduler's thread, but for :meth:`ask`.

    :param send: sends a message: see :data:`.Send`.
    """

    def __init__(self, broker: MemoryBroker, send: Send, scheduler: Scheduler = SCHEDULER) -> None:
        self._broker = broker
        self._scheduler = scheduler
        self._outlet = Outlet(send, self._next_packets, self.lost, scheduler)
        self._is_lost = False
        self._asks: deque[tuple[Request, _Done]] = deque()  # to be sent
        self._asked: dict[int, tuple[Request, _Done, list[Any], Unpacker]] = {}  # to be answered, by number
        self._number = 0  # of the last one
        self._told = Unpacker()
        self._times = WallTimes(scheduler.clock)
        self._states: Iterator[RecordState] = iter(())  # that are left
        self._items: Iterator[dict[str, Any]] = iter(())  # that are left of the first of them
        self._packer: Packer | None = None  # while there are any
        self._done: Callable[[], object] | None = None  # to be called after them

    def begin(self, done: Callable[[], object]) -> None:
        """Give all channels. What is sent after ``done`` is called comes after them.

        It begins once what another worker may be giving to this one is there.
        """
        if self._is_lost:
            return
        if self._broker.is_heir:
            self._scheduler.call_at(self._scheduler.clock() + LOOK_SECONDS, lambda: self.begin(done))
            return
        self._states = self._broker.handover.states(self)
        self._packer, self._done = Packer("state", 0), done
        self._outlet.wake()

    def ask(self, request: Request, done: _Done) -> None:
        """Have the other worker do this: see :class:`.Successor`. From any thread."""
        self._asks.append((request, done))
        if self._is_lost:
            self._give_up()
        else:
            self._outlet.wake()

    def receive(self, message: MemoryMessage) -> None:
        """Take an answer, or events that channels have got.

        :raises ValueError: where it is none to what was asked.
        """
        if message.part == "told":
            for item in self._told.unpack(message):
                self._broker.handover.follow(*read_event(item))
            return
        if message.part != "answer" or message.number not in self._asked:
            raise ValueError(f"this is no answer to what was asked: {message.part} {message.number}")
        request, done, items, unpacker = self._asked[message.number]
        items += unpacker.unpack(message)
        if message.more:
            return
        del self._asked[message.number]
        try:
            done(read_answer(items, request))
        except BrokerUnavailable as error:
            done(error)

    def lost(self) -> None:
        """Have channels go on here: the other worker is gone. Idempotent."""
        if not self._is_lost:
            self._is_lost = True
            self._outlet.close()
            self._packer = None
            self._broker.handover.end()
            self._give_up()

    def _next_packets(self) -> list[bytes]:
        """Return the next messages. What is asked of a channel comes after what was kept of it, and before the next."""
        packer = self._packer
        if packer is None:
            if self._done is not None:
                done, self._done = self._done, None
                done()
            return self._next_ask()
        for _ in range(ITEMS_AT_ONCE):
            item = next(self._items, None)
            if item is not None:
                if packets := packer.add(item):
                    return packets
            elif self._asks:
                return [packer.flush(), *self._next_ask()]
            elif not self._begin_next():
                self._packer = None
                return [packer.flush(is_last=True)]
        return [packer.flush()]

    def _begin_next(self) -> bool:
        state = next(self._states, None)
        if state is not None:
            self._items = items_of_state(state, self._times)
        return state is not None

    def _next_ask(self) -> list[bytes]:
        if not self._asks:
            return []
        request, done = self._asks.popleft()
        self._number += 1
        self._asked[self._number] = request, done, [], Unpacker()
        return pack("ask", self._number, items_of_request(request))

    def _give_up(self) -> None:
        asked = [done for _, done, _, _ in self._asked.values()]
        self._asked.clear()
        while self._asks:
            asked.append(self._asks.popleft()[1])
        for done in asked:
            done(None)
