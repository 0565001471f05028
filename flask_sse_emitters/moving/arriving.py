"""What a worker that stays does for one that stops: it takes its streams, over one connection.

All of it happens on the thread that writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial

from ..brokers import Broker, Start
from ..errors import UnsupportedWorker
from ..runtime.calls import call_and_log
from ..runtime.scheduler import RULES, SCHEDULER
from ..streams.stream import Stream
from ..wire.frame import Frame
from ..writers.client_socket import open_socket
from .app import APPS, MovingApp, find_app
from .meeting.link import Link, LinkLost, close_all
from .memory import MemoryTaker
from .packing import Adoption
from .protocol.messages import (
    VERSION,
    Answer,
    Hello,
    MemoryMessage,
    Message,
    Offer,
    Prepare,
    Prepared,
    Reason,
    Refusal,
    Welcome,
    encode,
)
from .protocol.stream_record import StreamRecord

#: Seconds that the other worker has to close the connection, once it was refused.
CLOSE_SECONDS = 2.0

log = logging.getLogger("flask_sse_emitters.moving")

#: Seconds between two looks at a connection.
TICK_SECONDS = 0.004

#: So many messages are taken in one go.
MESSAGES_AT_ONCE = 4

#: Seconds in which channels, and the position of each stream, are to be found here: the other worker waits for two.
FIND_SECONDS = 1.5


class Arriving:
    """Takes the streams of one app of another worker.

    :param link: which it closes.
    """

    def __init__(self, link: Link) -> None:
        self._link: Link | None = link
        self._app: MovingApp | None = None
        self._memory: MemoryTaker | None = None  # takes its channels, where they go along
        self._offer: Offer | None = None
        self._adoptions: list[Adoption | Reason] = []  # or why it is refused
        self._undecided: list[Adoption] = []  # among these
        self._preparations: list[Preparation] = []
        self._to_prepare: int | None = None  # the offer for which the last of them is
        self._by = 0.0  # when either is to be over
        self._answers: list[bytes] = []  # that are to be sent
        self._refused_by: float | None = None  # when to close, once it has said that it takes no more
        self._tick()

    @property
    def is_over(self) -> bool:
        """Whether no more streams come. Where channels have come, the other one may go on asking until it exits."""
        is_leaving = self._app is not None and self._app.streams.moves.is_leaving
        return self._offer is None and (self._link is None or (self._memory is not None and is_leaving))

    def _tick(self) -> None:
        began = SCHEDULER.clock()
        call_and_log(self._work)
        if self._link is not None or self._offer is not None:
            SCHEDULER.call_at(began + TICK_SECONDS, self._tick_soon)

    def _tick_soon(self) -> None:
        """Look again after all that waits by now: timers come first, and streams that are here are to be written to."""
        SCHEDULER.call_soon(self._tick)

    def _work(self) -> None:
        if self._to_prepare is not None:
            self._look_if_prepared(self._to_prepare)
        if self._offer is not None:
            self._decide(self._offer)
        try:
            self._send()
            for _ in range(MESSAGES_AT_ONCE):
                if self._link is None or self._offer is not None:
                    return
                if (received := self._link.receive()) is None:
                    break
                message, descriptors = received
                self._take(message, descriptors)
                if isinstance(message, Offer):  # others first, as this took its time
                    self._send()
                    return
            self._rest()
        except (LinkLost, ValueError) as lost:
            log.debug("no more streams come from the process %d: %s", self._link.peer if self._link else 0, lost)
            self._close()

    def _rest(self) -> None:
        """Close what has been refused, or refuse what may still come, where there is nothing now."""
        if self._refused_by is not None:
            if SCHEDULER.clock() > self._refused_by:
                self._close()
        elif self._app is not None and self._memory is None and self._app.streams.moves.is_leaving:
            self._refuse(Refusal("stopping", "this worker stops itself"))

    def _take(self, message: Message, descriptors: Sequence[int]) -> None:
        if self._refused_by is not None:
            close_all(descriptors)  # it was sent before the refusal arrived
        elif isinstance(message, Hello):
            self._greet(message)
        elif isinstance(message, Prepare) and self._app is not None:
            self._prepare(self._app, message)
        elif isinstance(message, Offer) and self._app is not None:
            self._begin(self._app, message, descriptors)
        elif isinstance(message, MemoryMessage) and self._memory is not None:
            self._memory.receive(message)
        else:
            close_all(descriptors)
            self._close()

    def _greet(self, hello: Hello) -> None:
        if hello.version != VERSION or hello.terms is None:
            found: MovingApp | Refusal = Refusal("version", f"version {VERSION} is spoken here, not {hello.version}")
        else:
            found = find_app(hello.terms)
        if isinstance(found, Refusal):
            log.info("streams of another worker are refused: %s", found.detail)
            self._refuse(found)
            for app in APPS:
                if app.memory is not None:  # its channels do not come either
                    app.memory.inheritance.end()
            return
        self._app = found
        if found.memory is not None and self._link is not None:
            self._memory = MemoryTaker(found.memory, self._link.send)
        self._answers.append(encode(Welcome()))
        self._send()

    def _refuse(self, refusal: Refusal) -> None:
        """Take no streams, or no more: all that were received have been answered for. The other worker closes then."""
        self._answers.append(encode(refusal))
        self._refused_by = SCHEDULER.clock() + CLOSE_SECONDS
        self._send()

    def _prepare(self, app: MovingApp, message: Prepare) -> None:
        self._to_prepare = message.batch
        self._by = SCHEDULER.clock() + FIND_SECONDS
        app.begin()
        self._preparations.append(Preparation(app.channels.broker, message.channels))
        self._look_if_prepared(message.batch)

    def _look_if_prepared(self, batch: int) -> None:
        if self._preparations[-1].is_over or SCHEDULER.clock() >= self._by:
            self._to_prepare = None
            self._answers.append(encode(Prepared(batch)))
            self._send()

    def _begin(self, app: MovingApp, offer: Offer, descriptors: Sequence[int]) -> None:
        self._offer = offer
        self._by = SCHEDULER.clock() + FIND_SECONDS
        self._adoptions = []
        app.begin()
        if descriptors:
            self._adoptions = list(map(partial(_adopt, app), offer.streams, descriptors))
        else:  # they could not be opened
            self._adoptions = ["descriptors"] * len(offer.streams)
        self._undecided = [each for each in self._adoptions if isinstance(each, Adoption)]
        self._decide(offer)

    def _decide(self, offer: Offer) -> None:
        is_late = SCHEDULER.clock() >= self._by
        for adoption in self._undecided:
            adoption.decide(is_late=is_late)
        self._undecided = [adoption for adoption in self._undecided if not adoption.is_decided]
        if self._undecided:
            return
        adoptions = [each for each in self._adoptions if isinstance(each, Adoption)]
        refused: dict[int, Reason] = {}
        for index, each in enumerate(self._adoptions):
            reason = each.refused if isinstance(each, Adoption) else each
            if reason is not None:
                refused[index] = reason
        self._answers.append(encode(Answer(offer.batch, refused)))
        adopted = [each.stream for each in adoptions if each.stream is not None]
        app = self._app
        if app is not None and (to_ask := list(filter(_can_be_asked_about, adopted))):
            SCHEDULER.run(lambda: app.recheck(to_ask), RULES)
        self._offer, self._adoptions = None, []

    def _send(self) -> None:
        while self._answers and self._link is not None and self._link.send(self._answers[0]):
            del self._answers[0]

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        if self._memory is not None:
            self._memory.close()
        for preparation in self._preparations:
            preparation.close()


class Preparation:
    """Has this process listen to channels before their streams come, until it is closed. Never waits.

    Where listening cannot begin, streams find that out themselves.
    """

    def __init__(self, broker: Broker, channels: Iterable[str]) -> None:
        self._broker = broker
        self._listeners = [_Listener(channel) for channel in channels]
        for listener in self._listeners:
            try:
                start = broker.subscribe(listener.channel, listener)
            except UnsupportedWorker:
                listener.has_started = True
            else:
                listener.has_started = listener.has_started or start is not None

    @property
    def is_over(self) -> bool:
        """Whether all of these channels are known here."""
        return all(listener.has_started for listener in self._listeners)

    def close(self) -> None:
        """Listen only as long as there are clients. Idempotent."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            self._broker.unsubscribe(listener.channel, listener)


class _Listener:
    clients = 0  #: it is none

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.has_started = False

    def started(self, _start: Start) -> None:
        self.has_started = True

    def arrived(self, _frames: Sequence[Frame]) -> float:
        return 0.0


def _adopt(app: MovingApp, record: StreamRecord, descriptor: int) -> Adoption | Reason:
    try:
        client = open_socket(descriptor)
    except OSError:
        close_all([descriptor])
        return "failed"
    adoption = Adoption(app, record, client)
    try:
        adoption.begin()
    except Exception:  # what was not foreseen costs this client a reconnect, and no other
        log.exception("a stream of another worker cannot go on here")
        adoption.refuse("failed")
    return adoption


def _can_be_asked_about(stream: Stream) -> bool:
    """Return whether the rule can be asked again: not where it named no reader, or a view has begun the stream."""
    return stream.reader is not None and stream.reader.request is not None
