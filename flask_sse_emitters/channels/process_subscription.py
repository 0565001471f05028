"""One channel's clients in this process, and what the broker delivers to them.

The process listens to the broker for as long as it has a client of the channel, once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from ..broadcast.delivery import Delivery
from ..broadcast.member import Member, MemberState
from ..brokers import Broker, ChannelState, Start
from ..brokers.event_log import Log
from ..config.settings import Settings
from ..errors import BrokerUnavailable
from ..runtime.gevent_loop import yield_now
from ..streams.emitter import SseEmitter
from ..streams.stream import Stream
from ..wire.frame import Frame

#: After ending this many streams in one go, a thread lets others have the processor for a moment.
ENDS_PER_YIELD = 20


class SubscriptionState(Enum):
    """What a process does with the events of a channel."""

    UNSUBSCRIBED = "unsubscribed"  #: it receives none: it has no client of the channel
    BUFFERING = "buffering"  #: it keeps them: the start is not known yet, or what arrived before is being delivered
    LIVE = "live"  #: it delivers them to its clients


class ProcessSubscription(Delivery):
    """The clients of one channel in this process, as a list to which the broker delivers.

    It is a :class:`.Delivery` that subscribes to the broker for its first client, and unsubscribes after the last.
    Every method may be called from any thread; none waits for the broker.

    :param name: of the channel.
    :param settings: of the app.
    :param before_subscribing: called each time before it subscribes.
    :ivar state: guarded by the lock, as all of it.
    :ivar log: the events that are kept of the channel, while it is live; else None.
    :ivar start_offset: the offset of the newest event as it subscribed: it receives those after it.
    """

    __slots__ = (
        "_before_subscribing",
        "_broker",
        "_buffered",
        "_joining",
        "_listener",
        "_waiting",
        "log",
        "name",
        "settings",
        "start_offset",
        "state",
    )

    name: str
    awaits_broker = True

    def __init__(self, name: str, broker: Broker, settings: Settings, before_subscribing: Callable[[], object]) -> None:
        self.name = name
        self._broker = broker
        self.settings = settings
        self._before_subscribing = before_subscribing
        self.reset()  # not Delivery.__init__: in a forked child the channels of the app reset it

    def reset(self) -> None:
        """Forget all clients, in a forked child: it has none of its parent's."""
        super()._reset()
        self.log: Log | None = None
        self.start_offset = 0
        self.state = SubscriptionState.UNSUBSCRIBED
        self._listener: ChannelListener | None = None
        self._buffered: list[Frame] = []
        self._joining: list[Member] = []  # get every event once it is live
        self._waiting: dict[Stream, None] = {}  # have their replay notified of the next arrival

    @property
    def delivered(self) -> int:
        """How many events it has had for clients, since the first of them came."""
        return self.number - self.ends

    def newest(self) -> int | None:
        """Return the offset after which a new client begins, where that is known, also while it is subscribing."""
        return self._broker.newest(self.name) if self.log is None else self.offset

    def find_state(self, *, was_complete: bool = False) -> ChannelState | None:
        """Return the state of the channel; None where that cannot be known now. May wait for the broker, within limits.

        While it is live, nobody is asked, but for a client that was told that the channel is complete, where that has
        not arrived here: it may come from a process that is ahead of this one.
        """
        here = None if self.log is None else ChannelState.of(self.log)
        if here is not None and (here.is_complete or not was_complete):
            return here
        if self._broker.status()["state"] != "ok":
            return here
        try:
            return self._broker.state(self.name)
        except (BrokerUnavailable, NotImplementedError):
            return here

    def add(self, emitter: SseEmitter) -> None:
        """Put an emitter in the list, until it ends: it gets what is published once this process knows the channel."""
        member = Member(emitter, self, MemberState.REPLAYING)
        if self.enlist(member):
            with self.lock:
                if self.state is SubscriptionState.LIVE:
                    member.go_live(self.number)
                else:
                    self._joining.append(member)

    def complete(self) -> None:
        """End every stream of the list, after all that was published before, in any process. The list can be used on.

        Never waits for the broker. Where that has to be asked what was published, streams end when it has answered, and
        those that join meanwhile end as well. As every send, it may wait a moment where too much is to be delivered.
        """
        self.sync(lambda: self.put([None]))
        self.wait_for_room()

    def sync(self, done: Callable[[], object]) -> None:
        """Call ``done`` once all that was published before, in any process, has arrived here. Never blocks."""
        self._broker.look_again(self.name, done)

    def notify_later(self, stream: Stream) -> None:
        """Notify the stream's replay once, when something arrives."""
        with self.lock:
            self._waiting[stream] = None

    def enlist(self, member: Member) -> bool:
        """Put a member in the list, and subscribe for the first. Return False where its stream has ended, or is here.

        :raises UnsupportedWorker: where the broker cannot be listened to in this process.
        """
        enlisted = super().enlist(member)
        self._subscribe_or_unsubscribe()
        return enlisted

    def leave(self, member: Member) -> None:
        """Take out a member, and unsubscribe after the last. Idempotent."""
        super().leave(member)
        if self._waiting:
            with self.lock:
                self._waiting.pop(member.stream, None)
        self._subscribe_or_unsubscribe()

    def begin(self, listener: ChannelListener, start: Start) -> None:
        """Begin at this start. With another log than before, begin again: the broker has lost track.

        Ignored unless it comes from the present listener.
        """
        with self.lock:
            if listener is not self._listener or self.log is start.log:
                return
            lost, self.log = self.log, None
            self.state = SubscriptionState.BUFFERING
            self.offset = self.start_offset = start.newest
            members = () if lost is None else self.members.snapshot()
            self._serve_joining()
        # Their positions are in a log that is no more. Clients come back with them, and get a gap event.
        for count, member in enumerate(members, 1):
            member.stream.end_with_retry()
            if not count % ENDS_PER_YIELD:
                yield_now()
        while buffered := self._take_buffered(listener, start):
            self.put(buffered)
        self._notify_waiting()

    def receive(self, listener: ChannelListener, frames: Sequence[Frame]) -> float:
        """Deliver what has arrived, as far as it is new, or buffer it.

        Ignored unless it comes from the present listener.

        :return: the seconds for which the broker is to pause.
        """
        with self.lock:
            if listener is not self._listener:
                return 0.0
            if self.state is SubscriptionState.BUFFERING:
                self._buffered += frames
                return 0.0
            new = [frame for frame in frames if frame.offset > self.offset]
        if new:
            self.put(new)
        self._notify_waiting()
        return self.back_pressure()

    def _subscribe_or_unsubscribe(self) -> None:
        new = old = None
        with self.lock:
            if len(self.members) and self.state is SubscriptionState.UNSUBSCRIBED:
                new = self._listener = ChannelListener(self)
                self.state = SubscriptionState.BUFFERING
            elif not len(self.members):
                old, self._listener, self.log = self._listener, None, None
                self.state = SubscriptionState.UNSUBSCRIBED
                self._buffered = []
        if new is not None:
            start = self._subscribe(new)
            if start is not None:
                self.begin(new, start)
            if new is not self._listener:  # all have left meanwhile
                old = new
        if old is not None:
            self._broker.unsubscribe(self.name, old)
        self._broker.count_again(self.name)

    def _subscribe(self, listener: ChannelListener) -> Start | None:
        try:
            self._before_subscribing()
            return self._broker.subscribe(self.name, listener)
        except BaseException:
            with self.lock:
                if self._listener is listener:  # the next client tries again
                    self._listener = None
                    self.state = SubscriptionState.UNSUBSCRIBED
            raise

    def _take_buffered(self, listener: ChannelListener, start: Start) -> list[Frame]:
        """Take what arrived before it was live. Once there is none, it is."""
        with self.lock:
            is_present = listener is self._listener
            buffered = [frame for frame in self._buffered if frame.offset > self.offset and is_present]
            self._buffered = []
            if not buffered and is_present:
                self.log = start.log
                self.state = SubscriptionState.LIVE
                self._serve_joining()
            return buffered

    def _serve_joining(self) -> None:
        joining, self._joining = self._joining, []
        for member in joining:
            member.go_live(self.number)

    def _notify_waiting(self) -> None:
        if self._waiting:
            with self.lock:
                waiting, self._waiting = self._waiting, {}
            for stream in waiting:
                stream.notify_replay()


class ChannelListener:
    """What the broker calls for a subscription, from its first client to its last: each time a new one."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: ProcessSubscription) -> None:
        self._subscription = subscription

    def started(self, start: Start) -> None:
        """Begin the subscription."""
        self._subscription.begin(self, start)

    def arrived(self, frames: Sequence[Frame]) -> float:
        """Deliver these events to the subscription."""
        return self._subscription.receive(self, frames)

    @property
    def clients(self) -> int:
        """The number of the channel's clients in this process."""
        return len(self._subscription.members)
