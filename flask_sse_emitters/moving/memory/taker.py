"""The worker that stays: it takes over the channels of another one, and does what that asks of them.

As long as that is there it is told what its channels get: it has streams that have not moved yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...brokers.base import Start
from ...brokers.memory import MemoryBroker
from ...brokers.memory.moves.handover import Answer, Request
from ...brokers.memory.record_state import RecordState
from ...errors import BrokerUnavailable
from ...runtime.scheduler import SCHEDULER, Scheduler
from ...wire.frame import Frame
from ..protocol.messages import MemoryMessage
from .items import StateReader, WallTimes, item_of_event, items_of_answer, read_request
from .outlet import Outlet, Send
from .packets import Unpacker, pack

#: So many events are told in one go.
EVENTS_AT_ONCE = 200

#: So many wait to be told at most. Where older ones are dropped, streams get nothing more until they have moved.
MOST_EVENTS = 50_000


class MemoryTaker:
    """Takes over the channels of another worker. On the scheduler's thread.

    :param send: sends a message: see :data:`.Send`.
    """

    def __init__(self, broker: MemoryBroker, send: Send, scheduler: Scheduler = SCHEDULER) -> None:
        self._broker = broker
        self._scheduler = scheduler
        self._packets: deque[list[bytes]] = deque()
        self._outlet = Outlet(send, self._next_packets, self.close, scheduler)
        self._tellers: list[_Teller] = []
        self._events: deque[tuple[str, Frame]] = deque(maxlen=MOST_EVENTS)  # that are to be told, with their channels
        self._reader = StateReader(WallTimes(scheduler.clock))
        self._unpackers = {0: Unpacker()}  # of what has not come as a whole, by number
        self._asked: dict[int, list[Mapping[str, Any]]] = {}
        self._is_over = False  # all channels are here, or no more will come

    def receive(self, message: MemoryMessage) -> None:
        """Take a message.

        :raises ValueError: where it is none that this side gets.
        """
        items = self._unpackers.setdefault(message.number, Unpacker()).unpack(message)
        if message.part == "state" and not self._is_over:
            for item in items:
                state = self._reader.read(item)
                if state is not None:
                    self._take(state)
            if not message.more:
                self.lost()
        elif message.part == "ask":
            asked = self._asked.setdefault(message.number, [])
            asked += items
            if not message.more:
                del self._asked[message.number], self._unpackers[message.number]
                self._answer(message.number, read_request(asked))
        else:
            raise ValueError(f"this side gets no {message.part!r} now")

    def lost(self) -> None:
        """Have nothing wait for channels any more: the other worker gives no more of them. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._broker.inheritance.end()

    def close(self) -> None:
        """Take and tell nothing more: the connection has ended. Idempotent."""
        self.lost()
        self._outlet.close()
        for teller in self._tellers:
            self._broker.unsubscribe(teller.channel, teller)
        self._tellers = []

    def tell(self, channel: str, frames: Sequence[Frame]) -> None:
        """Tell the other worker what a channel has got. From any thread; never blocks."""
        self._events.extend((channel, frame) for frame in frames)
        self._outlet.wake()

    def _take(self, state: RecordState) -> None:
        teller = _Teller(self, state.name)
        self._tellers.append(teller)
        self._broker.inheritance.take(state, teller)

    def _answer(self, number: int, request: Request) -> None:
        answer = partial(self._do, number, request)
        if self._broker.waits(request.channel):  # for what this very thread has to do
            self._scheduler.run(answer)
        else:
            answer()

    def _do(self, number: int, request: Request) -> None:
        answer: Answer | BrokerUnavailable
        try:
            answer = self._broker.answer(request)
        except BrokerUnavailable as error:
            answer = error
        # Once what it has published is told: the one that asked has it then.
        self._broker.look_again(request.channel, partial(self._put_answer, number, answer))

    def _put_answer(self, number: int, answer: Answer | BrokerUnavailable) -> None:
        self._packets.append(pack("answer", number, items_of_answer(answer)))
        self._outlet.wake()

    def _next_packets(self) -> list[bytes]:
        answer = self._packets.popleft() if self._packets else []  # before the events, which are to be sent first
        events = [self._events.popleft() for _ in range(min(len(self._events), EVENTS_AT_ONCE))]
        told = pack("told", 0, [item_of_event(*event) for event in events]) if events else []
        return told + answer


class _Teller:
    """Listens to a channel that was taken over, for the worker that had it."""

    clients = 0  #: it is none

    def __init__(self, taker: MemoryTaker, channel: str) -> None:
        self.channel = channel
        self._taker = taker
        self._is_over = False

    def started(self, _start: Start) -> None:
        """Tell nothing more: the channel goes on in another log, as a third worker had it as well."""
        self._is_over = True

    def arrived(self, frames: Sequence[Frame]) -> float:
        """Tell of these events."""
        if not self._is_over:
            self._taker.tell(self.channel, frames)
        return 0.0
