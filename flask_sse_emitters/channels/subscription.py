"""One channel's clients in this process, and what they are told of the channel.

The process listens to the broker for as long as it has a client of the channel, once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..broadcast.delivery import Delivery
from ..broadcast.emitters import SseEmitters
from ..broadcast.member import Member, MemberState
from ..brokers import Broker, Start
from ..brokers.event_log import Log
from ..config.settings import Settings
from ..runtime.gevent_loop import yield_now
from ..streams.emitter import SseEmitter
from ..streams.stream import Stream
from ..wire.frame import Frame

#: So many clients are sent back in one go: then others get the processor for a moment.
SENT_BACK_AT_ONCE = 20


class Feed(Delivery):
    """The list of a channel's clients. What is put in by hand gets what is published from then on.

    :param name: of the channel.
    :param settings: of the app.
    :param before: is called before it begins to listen.
    """

    __slots__ = ("_before", "_broker", "_coming", "_ear", "_early", "_waiting", "first", "log", "name", "settings")

    name: str
    awaits_broker = True

    def __init__(self, name: str, broker: Broker, settings: Settings, before: Callable[[], object]) -> None:
        self.name = name
        self._broker = broker
        self.settings = settings
        self._before = before
        self._reset()  # in a forked child as well: its channels see to that

    def _reset(self) -> None:
        super()._reset()
        #: What is kept of the channel; None until it is known.
        self.log: Log | None = None
        #: Of the newest event when this was known.
        self.first = 0
        self._ear: _Ear | None = None
        self._early: list[Frame] = []  # what was told before that
        self._coming: list[Member] = []  # are to be served from then on
        self._waiting: dict[Stream, None] = {}  # their replay is notified when there is news

    @property
    def told(self) -> int:
        """How many events it has had for clients, since the first of them came."""
        return self.number

    def newest(self) -> int | None:
        """Where whoever comes now begins, as far as that is known: also while another thread begins to listen."""
        return self._broker.newest(self.name) if self.log is None else self.offset

    def add(self, emitter: SseEmitter) -> None:
        """Put an emitter in the list, until it ends: it gets what is published once this process knows the channel."""
        member = Member(emitter, self, MemberState.REPLAYING)
        if self.enlist(member):
            with self.lock:
                if self.log is None:
                    self._coming.append(member)
                else:
                    member.go_live(self.number)

    def complete(self) -> None:
        """End every stream of the list, after all that was published before, in any process. The list can be used on.

        Never waits for the broker. Where that has to be asked what was published, streams end when it has answered, and
        those that join meanwhile end as well. As every send, it may wait a moment where too much is to be delivered.
        """
        self.sync(lambda: self.put([None]))
        self.wait_for_room()

    def sync(self, done: Callable[[], object]) -> None:
        """Call ``done`` once all that was published before, anywhere, has arrived here."""
        self._broker.look_again(self.name, done)

    def notify_later(self, stream: Stream) -> None:
        """Notify the stream's replay when something has arrived."""
        with self.lock:
            self._waiting[stream] = None

    def enlist(self, member: Member) -> bool:
        """Put a member in the list, and listen to the channel."""
        enlisted = super().enlist(member)
        self._listen_or_not()
        return enlisted

    def leave(self, member: Member) -> None:
        """Take out a member, and listen no more after the last."""
        super().leave(member)
        if self._waiting:
            with self.lock:
                self._waiting.pop(member.stream, None)
        self._listen_or_not()

    def _listen_or_not(self) -> None:
        begins = ends = None
        with self.lock:
            if len(self.members) and self._ear is None:
                begins = self._ear = _Ear(self)
            elif not len(self.members):
                ends, self._ear, self.log = self._ear, None, None
                self._early = []
        if begins is not None:
            start = self._subscribe(begins)
            if start is not None:
                self._started(begins, start)
            if begins is not self._ear:  # all have left meanwhile
                ends = begins
        if ends is not None:
            self._broker.unsubscribe(self.name, ends)
        self._broker.count_again(self.name)

    def _subscribe(self, ear: _Ear) -> Start | None:
        try:
            self._before()
            return self._broker.subscribe(self.name, ear)
        except BaseException:
            with self.lock:
                self._ear = None if self._ear is ear else self._ear  # whoever comes next tries again
            raise

    def _started(self, ear: _Ear, start: Start) -> None:
        with self.lock:
            if ear is not self._ear or self.log is start.log:
                return
            lost, self.log = self.log, None
            self.offset = self.first = start.newest
            members = () if lost is None else self.members.snapshot()
            self._serve_coming()
        # Their positions are of a log that is no more. They come back with them, and are told of the gap.
        for count, member in enumerate(members, 1):
            member.stream.end_with_retry()
            if not count % SENT_BACK_AT_ONCE:
                yield_now()
        while early := self._take_early(ear, start):
            self.put(early)
        self._wake_waiting()

    def _take_early(self, ear: _Ear, start: Start) -> list[Frame]:
        """What was told before it was known from where on. Once there is none, all is put in as it comes."""
        with self.lock:
            early = [frame for frame in self._early if frame.offset > self.offset and ear is self._ear]
            self._early = []
            if not early and ear is self._ear:
                self.log = start.log
                self._serve_coming()
            return early

    def _serve_coming(self) -> None:
        coming, self._coming = self._coming, []
        for member in coming:
            member.go_live(self.number)

    def _arrived(self, ear: _Ear, frames: Sequence[Frame]) -> float:
        with self.lock:
            if ear is not self._ear:
                return 0.0
            if self.log is None:
                self._early += frames
                return 0.0
            new = [frame for frame in frames if frame.offset > self.offset]
        if new:
            self.put(new)
        self._wake_waiting()
        return self.back_pressure()

    def _wake_waiting(self) -> None:
        if self._waiting:
            with self.lock:
                waiting, self._waiting = self._waiting, {}
            for stream in waiting:
                stream.notify_replay()


class _Ear:
    """What a feed listens with, from its first client to its last."""

    __slots__ = ("_feed",)

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def started(self, start: Start) -> None:
        self._feed._started(self, start)

    def arrived(self, frames: Sequence[Frame]) -> float:
        return self._feed._arrived(self, frames)

    @property
    def clients(self) -> int:
        return len(self._feed.members)


class ChannelEmitters(SseEmitters):
    """The list of a channel's clients, as :attr:`.Channel.emitters` gives it."""

    __slots__ = ("_feed",)

    def __init__(self, feed: Feed) -> None:
        self._delivery = self._feed = feed

    def _settings(self) -> Settings:
        return self._feed.settings

    def _dumps(self, data: Any) -> str | bytes:
        return self._feed.settings.dumps(data)
