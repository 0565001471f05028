"""The worker that stays: it takes over the channels of another one, and does what that asks of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

from ...brokers.memory import MemoryBroker
from ...brokers.memory.moves.handover import Answer, Request
from ...errors import BrokerUnavailable
from ...runtime.scheduler import SCHEDULER, Scheduler
from ..protocol.messages import MemoryMessage
from .items import StateReader, WallTimes, items_of_answer, read_request
from .outlet import Outlet, Send
from .packets import Unpacker, pack


class MemoryTaker:
    """Takes over the channels of another worker. On the scheduler's thread.

    :param send: sends a message: see :data:`.Send`.
    """

    def __init__(self, broker: MemoryBroker, send: Send, scheduler: Scheduler = SCHEDULER) -> None:
        self._broker = broker
        self._scheduler = scheduler
        self._packets: deque[list[bytes]] = deque()
        self._outlet = Outlet(send, self._next_packets, self.lost, scheduler)
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
                    self._broker.inheritance.take(state)
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
        self._packets.append(pack("answer", number, items_of_answer(answer)))
        self._outlet.wake()

    def _next_packets(self) -> list[bytes]:
        return self._packets.popleft() if self._packets else []
