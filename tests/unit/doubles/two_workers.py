"""Two workers' brokers in one process, joined by the messages that go between them."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable

from flask_sse_emitters.brokers import Frame, Position
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.moving.memory import MemoryGiver, MemoryTaker
from flask_sse_emitters.moving.protocol.messages import MAX_MEMORY_BYTES, MemoryMessage, decode
from flask_sse_emitters.runtime.scheduler import Scheduler


class TwoWorkers:
    """One that stops, and one that stays.

    :param room: so many messages are on their way at most, in each direction.
    :ivar packets: all that have been sent.
    :ivar is_cut: nothing passes any more.
    :ivar cut_after: it is cut after so many messages.
    """

    def __init__(self, scheduler: Scheduler, room: int = 3) -> None:
        self.scheduler = scheduler
        self.stops = MemoryBroker(scheduler=scheduler)
        self.stays = MemoryBroker(scheduler=scheduler)
        self.packets: list[bytes] = []
        self.is_cut = False
        self.cut_after = math.inf
        self.is_given = False
        self._room = room
        self._on_way: list[deque[bytes]] = [deque(), deque()]
        self.giver = MemoryGiver(self.stops, lambda packet: self._send(0, packet), scheduler)
        self.taker = MemoryTaker(self.stays, lambda packet: self._send(1, packet), scheduler)

    def give(self) -> None:
        """Begin to give all channels away."""

        def done() -> None:
            self.is_given = True

        self.giver.begin(done)

    def cut(self) -> None:
        """Have both find the other one gone. On the scheduler's thread."""
        self.is_cut = True
        self.giver.lost()
        self.taker.close()

    def _send(self, side: int, packet: bytes) -> bool:
        assert len(packet) <= MAX_MEMORY_BYTES
        if self.is_cut or len(self.packets) >= self.cut_after:
            raise ConnectionResetError
        if len(self._on_way[side]) >= self._room:
            return False
        self.packets.append(packet)
        self._on_way[side].append(packet)
        receive: Callable[[MemoryMessage], None] = self.giver.receive if side else self.taker.receive
        self.scheduler.call_soon(lambda: self._deliver(side, receive))
        return True

    def _deliver(self, side: int, receive: Callable[[MemoryMessage], None]) -> None:
        message = decode(self._on_way[side].popleft())
        assert isinstance(message, MemoryMessage)
        if not self.is_cut:
            receive(message)

    def items(self) -> list[dict[str, object]]:
        """Return what has been sent, but for what was cut into pieces."""
        return [item for packet in self.packets for item in json.loads(packet)["items"]]


def read(broker: MemoryBroker, channel: str, position: Position | None = None) -> list[Frame] | None:
    """Return what a client gets that comes back to here; None for a gap. Without a position, all that is kept."""
    log = broker._records.find(channel).log
    offset = log.oldest - 1 if position is None else log.find(position)
    if offset is None or (offset < log.oldest - 1 and not log.is_before_end(offset)):
        return None
    found: list[Frame] = []
    while more := log.after(offset, log.newest):
        found += [each._replace(at=0.0) for each in more]  # the two tell the time of the wall clock to a microsecond
        offset = more[-1].offset
    return found


def texts(frames: list[Frame] | None) -> list[str] | None:
    return (
        None
        if frames is None
        else [frame.payload[frame.body :].decode().removeprefix("data: ").strip() for frame in frames]
    )
