"""What a worker that stops does for the streams of one app: it gives them to workers that stay.

It goes on delivering until one of these is ready. Then it freezes some streams at a time, offers them, and lets go of
those that are adopted. What cannot move, or is refused, stays, and ends as without a move.

All of it happens on the thread that writes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

from ..runtime.calls import call_and_log
from ..runtime.scheduler import SCHEDULER
from ..streams.stream import Stream
from .app import MovingApp
from .meeting.link import MAX_MESSAGE_BYTES, Link, LinkLost
from .memory import MemoryGiver
from .packing import Packed, pack
from .protocol.messages import VERSION, Answer, Hello, MemoryMessage, OfferBuilder, Refusal, Welcome, encode

log = logging.getLogger("flask_sse_emitters.moving")

#: Seconds between two looks at the connections, and between two searches for workers.
TICK_SECONDS, SEARCH_SECONDS = 0.004, 0.05

#: Seconds that another worker has for an answer.
ANSWER_SECONDS = 2.0

#: So many offers to one worker await an answer: it finds the next one there when it has answered for the first.
OFFERS_AT_ONCE = 2

#: Seconds that are waited for more workers once one is ready, so that it does not get everything.
GATHER_SECONDS = 1.0


class Offered(NamedTuple):
    """Streams that were offered in one message, and whose answer is awaited."""

    batch: int
    streams: Sequence[Packed]


class Giving:
    """The connection to one worker that stays."""

    def __init__(self, link: Link, app: MovingApp) -> None:
        self.is_ready = False  #: offers are awaited
        self.is_over = False  #: nothing more is to be given
        self.refused: str | None = None  #: why all are
        self._link = link
        self._app = app
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
    def is_free(self) -> bool:
        """Whether it may be offered something now."""
        is_free = self._to_send is None and len(self._offers) < OFFERS_AT_ONCE
        return self.is_ready and not self.is_over and is_free

    @property
    def has_answers(self) -> bool:
        """Whether it is known what became of all that it was offered."""
        return not self._offers

    @property
    def is_heir(self) -> bool:
        """Whether it has the channels of this process, which go on asking for what is still published here."""
        return self._memory is not None and self.is_ready and not self.is_over

    @property
    def _awaits_answer(self) -> bool:
        return bool(self._offers) or not (self.is_ready or self._is_giving_memory)

    def work(self) -> None:
        """Send what there is to send, and take an answer."""
        if self.is_over:
            return
        try:
            if self._to_send is not None and self._link.send(*self._to_send):
                self._to_send = None
            received = self._link.receive()
            if received is not None:
                self._take(received[0])
        except (LinkLost, ValueError) as lost:
            self._lose(str(lost))
            return
        if received is None and self._awaits_answer and SCHEDULER.clock() > self._answer_by:
            self._lose("it has not answered in time")

    def offer(self, todo: deque[Stream]) -> None:
        """Offer as many streams as fit into one message, and take them from these."""
        self._batch += 1
        offered: list[Packed] = []
        builder = OfferBuilder(self._batch, MAX_MESSAGE_BYTES)
        while todo:
            stream = todo[0]
            packed = pack(stream)
            if isinstance(packed, Packed) and not builder.add(packed.record):
                packed.writer.thaw()
                if len(builder):
                    break
                packed = "too large"
            todo.popleft()
            if isinstance(packed, Packed):
                offered.append(packed)
            elif packed != "ended":
                self._app.streams.moves.note_refused(packed)
        if offered:
            self._offers.append(Offered(self._batch, offered))
            self._to_send = builder.encode(), [packed.writer.descriptor for packed in offered]
            self._answer_by = SCHEDULER.clock() + ANSWER_SECONDS
            self.work()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.is_over = True
        self._link.close()
        if self._memory is not None:
            self._memory.lost()

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


class Departing:
    """Gives the streams of one app away, as far as they can move.

    :param find_links: connects to workers that are ready, each of them once.
    :param may_come: returns whether more workers may become ready, where these have gone.
    :param enough: with so many workers it begins at once.
    :param until: when it gives up, by the scheduler's clock.
    """

    def __init__(
        self,
        app: MovingApp,
        find_links: Callable[[], list[Link]],
        may_come: Callable[[Container[str]], bool],
        enough: int,
        until: float,
    ) -> None:
        self.is_over = False
        self._app = app
        self._find_links = find_links
        self._may_come = may_come
        self._enough = enough
        self._until = until
        self._givings: list[Giving] = []
        self._seen: set[Stream] = set()
        self._todo: deque[Stream] = deque()
        self._search_at = self._begin_at = 0.0
        self._tick()

    def _tick(self) -> None:
        began = SCHEDULER.clock()
        call_and_log(self._serve_asks if self.is_over else self._work)
        if not self.is_over or any(giving.is_heir for giving in self._givings):
            seconds = TICK_SECONDS if any(not giving.is_over for giving in self._givings) else SEARCH_SECONDS
            SCHEDULER.call_at(began + seconds, self._tick)

    def close(self) -> None:
        """Close all connections, as the process exits. Idempotent."""
        for giving in self._givings:
            giving.close()

    def _serve_asks(self) -> None:
        """Have the heir do what is still published here."""
        for giving in self._givings:
            giving.work()

    def _work(self) -> None:
        now = SCHEDULER.clock()
        if now >= self._search_at:
            self._search_at = now + SEARCH_SECONDS
            self._search()
        for giving in self._givings:
            giving.work()
        ready = [giving for giving in self._givings if giving.is_ready and not giving.is_over]
        if ready and not self._begin_at:
            self._begin_at = now + GATHER_SECONDS
        if ready and (now >= self._begin_at or len(ready) >= self._enough):
            self._offer(ready)
        is_asking = any(not giving.is_over and not giving.is_ready for giving in self._givings)
        if self.is_over:
            return
        if now >= self._until or not (ready or is_asking or self._may_come(self._gone())):
            self._finish()

    def _search(self) -> None:
        """Connect to more workers; to one at a time where channels go along: all of them go to one process."""
        if self._app.memory is None:
            self._givings += [Giving(link, self._app) for link in self._find_links()]
        elif all(giving.is_over for giving in self._givings):
            links = self._find_links()
            self._givings += [Giving(link, self._app) for link in links[:1]]
            for link in links[1:]:
                link.close()

    def _gone(self) -> set[str]:
        """Return the workers that were there, and have stopped."""
        return {str(giving.peer) for giving in self._givings if giving.is_over and giving.refused in (None, "stopping")}

    def _offer(self, ready: list[Giving]) -> None:
        if not self._todo:
            self._todo.extend(stream for stream in self._app.streams.streams() if stream not in self._seen)
            self._seen.update(self._todo)
        for giving in ready:
            if giving.is_free and self._todo:
                giving.offer(self._todo)
        if not self._todo and all(giving.has_answers for giving in ready):
            self._finish()

    def _finish(self) -> None:
        self.is_over = True
        streams = self._app.streams
        left = len(self._todo) + sum(stream not in self._seen for stream in streams.streams())
        if left:
            streams.moves.note_refused(
                next((each.refused for each in self._givings if each.refused), "no worker"), left
            )
        for giving in self._givings:
            if not giving.is_heir:
                giving.close()
        moved = streams.moves.figures()
        if moved["out"] or streams:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in moved["refused"].items())
            log.info(
                "the worker stops; streams that have moved to other workers: %d, that end: %d%s",
                moved["out"],
                len(streams),
                f" ({reasons})" if reasons else "",
            )
