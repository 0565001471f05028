"""The connection of a worker that stops to one that stays: it gives that one streams, and lets go of what is adopted.

Before streams are frozen the other worker listens to their channels. All of it happens on the thread that writes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..channels.process_subscription import ProcessSubscription
from ..runtime.scheduler import SCHEDULER
from ..streams.stream import Stream
from .app import MovingApp
from .meeting.link import MAX_MESSAGE_BYTES, Link, LinkLost
from .memory import MemoryGiver
from .packing import Packed, pack
from .protocol.messages import (
    VERSION,
    Answer,
    Hello,
    MemoryMessage,
    OfferBuilder,
    Prepare,
    Prepared,
    Refusal,
    Welcome,
    encode,
)

log = logging.getLogger("flask_sse_emitters.moving")

#: Seconds that another worker has for an answer.
ANSWER_SECONDS = 2.0

#: So many offers to one worker await an answer: it finds the next one there when it has answered for the first.
OFFERS_AT_ONCE = 2

#: So many messages are taken in one go. Each event of a channel in memory that the other worker has by now is one.
MESSAGES_AT_ONCE = 16

#: So many streams are frozen for one offer: their clients get nothing until it is answered.
STREAMS_AT_ONCE = 100

#: The names of channels in one message have so many characters at most, each of which takes six bytes at most.
MOST_OF_NAMES = MAX_MESSAGE_BYTES // 8


class Offered(NamedTuple):
    """Streams that were offered in one message, and whose answer is awaited."""

    batch: int
    streams: Sequence[Packed]


class Giving:
    """The connection to one worker that stays.

    :param todo: the streams that are left: it takes what it offers from them.
    """

    def __init__(self, link: Link, app: MovingApp, todo: deque[Stream]) -> None:
        self.is_ready = False  #: offers are awaited
        self.is_over = False  #: nothing more is to be given
        self.refused: str | None = None  #: why all are
        self._link = link
        self._app = app
        self._todo = todo
        self._next: deque[Stream] = deque()  # are offered next, and not frozen yet
        self._channels: set[str] = set()  # of all that it was told to prepare for
        self._is_prepared = True  # for the next ones
        self._memory = None if app.memory is None else MemoryGiver(app.memory, link.send)
        self._is_giving_memory = False
        self._batch = 0
        self._offers: deque[Offered] = deque()  # the oldest is answered first
        self._to_send: tuple[bytes, list[int]] | None = (encode(Hello(VERSION, app.terms())), [])
        self._answer_by = SCHEDULER.clock() + ANSWER_SECONDS

    @property
    def peer(self) -> int:
        """The process of the other worker."""
        return self._link.peer

    @property
    def has_answers(self) -> bool:
        """Whether it is known what became of all that it was to get."""
        return not self._offers and not self._next

    @property
    def is_heir(self) -> bool:
        """Whether it has the channels of this process, which go on asking for what is still published here."""
        return self._memory is not None and self.is_ready and not self.is_over

    @property
    def _awaits_answer(self) -> bool:
        return bool(self._offers) or not (self._is_prepared and (self.is_ready or self._is_giving_memory))

    def work(self) -> None:
        """Send what there is to send, and take an answer."""
        if self.is_over:
            return
        try:
            if self._to_send is not None and self._link.send(*self._to_send):
                self._to_send = None
            received = self._receive_some()
        except (LinkLost, ValueError) as lost:
            self._lose(str(lost))
            return
        if not received and self._awaits_answer and SCHEDULER.clock() > self._answer_by:
            self._lose("it has not answered in time")

    def _receive_some(self) -> int:
        """Take what has come; where that is much, some of it. Return how many messages it was."""
        for count in range(MESSAGES_AT_ONCE):
            received = None if self.is_over else self._link.receive()
            if received is None:
                return count
            self._take(received[0])
        return MESSAGES_AT_ONCE

    def go_on(self) -> None:
        """Choose the streams that come next, and offer them once the other worker listens to their channels."""
        if not self._next and self._is_free:
            self._next.extend(self._todo.popleft() for _ in range(min(len(self._todo), STREAMS_AT_ONCE)))
            self._prepare()
        if self._next and self._is_prepared and self._is_free:
            self._offer()

    def give_back(self) -> None:
        """Leave those that are not frozen yet to others. Idempotent."""
        self._todo.extendleft(reversed(self._next))
        self._next.clear()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.is_over = True
        self.give_back()
        self._link.close()
        if self._memory is not None:
            self._memory.lost()

    @property
    def _is_free(self) -> bool:
        return not self.is_over and self._to_send is None and len(self._offers) < OFFERS_AT_ONCE

    def _prepare(self) -> None:
        """Have it listen to the channels of the next streams, unless it has all of them."""
        if self._memory is not None:
            return
        names, room = [], MOST_OF_NAMES
        for name in (name for stream in self._next for name in _channels_of(stream)):
            size = len(name) + len('"", ')
            if name not in self._channels and size <= room:  # the others are found as their streams come
                names.append(name)
                self._channels.add(name)
                room -= size
        if names:
            self._is_prepared = False
            self._to_send = encode(Prepare(self._batch + 1, tuple(names))), []
            self._answer_by = SCHEDULER.clock() + ANSWER_SECONDS
            self.work()

    def _offer(self) -> None:
        """Offer as many of them as fit into one message."""
        self._batch += 1
        offered: list[Packed] = []
        builder = OfferBuilder(self._batch, MAX_MESSAGE_BYTES)
        while self._next:
            stream = self._next[0]
            packed = pack(stream)
            if isinstance(packed, Packed) and not builder.add(packed.record):
                packed.writer.thaw()
                if len(builder):
                    break
                packed = "too large"
            self._next.popleft()
            if isinstance(packed, Packed):
                offered.append(packed)
            elif packed != "ended":
                self._app.streams.moves.note_refused(packed)
        if offered:
            self._offers.append(Offered(self._batch, offered))
            self._to_send = builder.encode(), [packed.writer.descriptor for packed in offered]
            self._answer_by = SCHEDULER.clock() + ANSWER_SECONDS
            self.work()

    def _begin(self) -> None:
        self._is_giving_memory, self.is_ready = False, True

    def _take(self, message: object) -> None:
        if isinstance(message, Welcome) and not self.is_ready:
            if self._memory is None:
                self._begin()
            else:
                self._is_giving_memory = True
                self._memory.begin(self._begin)
        elif isinstance(message, MemoryMessage) and self._memory is not None:
            self._memory.receive(message)
        elif isinstance(message, Refusal):
            log.info("the worker %d takes no streams: %s", self.peer, message.detail)
            self.refused = message.reason
            for packed in self._take_offers():  # it has answered for all that it has received
                packed.writer.thaw()
            self.close()
        elif isinstance(message, Prepared) and not self._is_prepared and message.batch == self._batch + 1:
            self._is_prepared = True
        elif isinstance(message, Answer) and self._fits(message):
            self._answer_by = SCHEDULER.clock() + ANSWER_SECONDS
            for index, packed in enumerate(self._offers.popleft().streams):
                reason = message.refused.get(index)
                if reason is None:
                    packed.writer.let_go()
                else:
                    self._app.streams.moves.note_refused(reason)
                    packed.writer.thaw()
        else:
            self._lose("it has not kept to the protocol")

    def _fits(self, answer: Answer) -> bool:
        if not self._offers or answer.batch != self._offers[0].batch:
            return False
        return all(0 <= index < len(self._offers[0].streams) for index in answer.refused)

    def _take_offers(self) -> list[Packed]:
        offers = [packed for offered in self._offers for packed in offered.streams]
        self._offers.clear()
        return offers

    def _lose(self, why: str) -> None:
        """Give nothing more. Who has the streams that were offered is not known: their clients come back."""
        if self._to_send is not None and self._to_send[1]:  # it never got these
            for packed in self._offers.pop().streams:
                packed.writer.thaw()
        if offered := self._take_offers():
            log.warning("the worker %d was given %d streams: %s; they end", self.peer, len(offered), why)
            self._app.streams.moves.note_refused("no answer", len(offered))
            for packed in offered:
                packed.writer.give_up()
        self.close()


def _channels_of(stream: Stream) -> Iterator[str]:
    return (each.list.name for each in stream.outgoing.members if isinstance(each.list, ProcessSubscription))
