"""The channels of one app in this process: publishing to them, and subscribing clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict
from weakref import WeakValueDictionary

from .. import signals
from ..brokers import Broker, Position, Publication, Published
from ..brokers.event_log import Bounds
from ..config.settings import CHANCE, Settings
from ..errors import BrokerUnavailable
from ..runtime.fork import reset_after_fork
from ..runtime.gevent_loop import yield_if_due
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER
from ..streams.emitter import SseEmitter, stream_of
from ..streams.registry.draining import drain_at_exit
from ..streams.registry.identity import Reader
from ..streams.registry.limits import Limit
from ..streams.registry.open_streams import StreamRegistry
from ..streams.stream import Stream
from ..types import Duration
from ..wire.frame import CHANNEL_END, END, Frame
from .members.roster import Roster
from .members.subscription import MembersSubscription
from .names import check_key
from .options import OptionTable
from .process_subscription import ProcessSubscription
from .publishing import (
    PublishCounts,
    encode_for_channel,
    id_of_first,
    ids_of_all,
    publications_of,
    publish_on,
    with_end,
)
from .replay.arrivals import arrive
from .replay.machine import Replay
from .replay.pages import PageCache
from .replay.since import parse_since
from .runs.publishing_thread import Stop
from .runs.run import Plan, Run, Tasks, start_task

#: ``SSE_TIMEOUT`` varies by this part of it, so that clients who came together do not leave together.
LIFETIME_SPREAD = 0.1

#: A process that stops waits so long for its runs to end their channels.
STOP_SECONDS = 1.0


class ChannelCounts(TypedDict):
    """The part of :class:`.Stats` that is about channels."""

    channels: dict[str, int]
    events: dict[str, int]


class Channels:
    """The channels of one app, in this process. Every method may be called from any thread.

    :param options: of its channels.
    :param streams: the open streams of the app.
    :param app: the sender of signals.
    """

    has_background = True  #: see :class:`.Destination`

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        options: OptionTable,
        streams: StreamRegistry,
        app: Any = None,
    ) -> None:
        self._app = app
        self.broker = broker
        #: Called before the process subscribes to a channel.
        self.before_subscribing: Callable[[], object] = lambda: None
        self.settings = settings
        self._bounds = Bounds(settings.history, settings.history_seconds)  # of channels without options
        self._options = options
        self._streams = streams
        self._is_closed = False
        self.roster = Roster(broker, options, settings, self.bounds)  #: of its members here
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        for subscription in getattr(self, "_subscriptions", {}).values():
            subscription.reset()
        self._lock = native_lock()
        self.publish_counts = PublishCounts()
        self._pages = PageCache()
        # Each is kept while it has clients, or is in use.
        self._subscriptions: WeakValueDictionary[str, ProcessSubscription] = WeakValueDictionary()
        self.tasks = Tasks()  #: its runs here
        self._limits: WeakValueDictionary[str, Limit] = WeakValueDictionary()  # each while a stream counts for it

    def subscription(self, name: str) -> ProcessSubscription:
        """Return the list of a channel's clients in this process."""
        subscription = self._subscriptions.get(name)
        if subscription is None:
            common = name, self.broker, self.settings, lambda: self.before_subscribing()
            has_members = self.roster.has_members(name)
            new = MembersSubscription(*common, self.roster) if has_members else ProcessSubscription(*common)
            with self._lock:
                subscription = self._subscriptions.setdefault(name, new)
        return subscription

    def publish(
        self, name: str, data: Any, event: str | None, retry: int | None, key: str | None, *, last: bool = False
    ) -> str:
        """Publish an event, and return its id: see :meth:`.SSE.publish`. May wait for the broker, within limits."""
        frame = encode_for_channel(data, event, retry, self.settings)
        bounds, key = self.bounds(name), check_key(key)
        if last:
            return id_of_first(self.send(with_end(Publication(name, frame, bounds, key))))
        self.check_open()
        began = time.perf_counter()
        try:  # as send() does, in half the time
            event_id, is_new = self.broker.publish(name, frame, bounds, key)
        except BrokerUnavailable:
            self.publish_counts.note_attempt(0, time.perf_counter() - began, has_failed=True)
            _give_way(self._subscriptions.get(name))
            raise
        seconds = time.perf_counter() - began
        self.publish_counts.note_attempt(int(is_new), seconds, has_failed=False)
        if is_new and signals.event_published.receivers:
            _tell(self._app, name, frame, event_id, seconds)
        _give_way(self._subscriptions.get(name))
        return event_id

    def publish_many(self, events: Iterable[tuple[str, Any]]) -> list[str]:
        """Publish several events in one step: see :meth:`.SSE.publish_many`. May wait for the broker, within limits."""
        return ids_of_all(self.send(publications_of(events, self.settings, self.bounds)))

    def complete(self, name: str, event: Any) -> str:
        """End a channel, after an event if there is one: see :meth:`.Channel.complete`. May wait for the broker."""
        if event is not None:
            return self.publish(name, event, None, None, None, last=True)
        return id_of_first(self.send([Publication(name, CHANNEL_END, self.bounds(name))]))

    def position(self, names: Sequence[str]) -> str:
        """Return the id of the newest events: see :meth:`.SSE.position`. May wait for the broker, within limits."""
        states = [self.broker.state(name) for name in names]
        return ",".join(str(Position(state.epoch, state.newest)) for state in states)

    def send(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish all in one step, which is one attempt. May wait for the broker, within limits, and for delivery.

        :return: what :meth:`.Broker.publish_many` does.
        """
        self.check_open()
        began = time.perf_counter()
        results = publish_on(self.broker, publications)
        seconds = time.perf_counter() - began
        new = [
            (publication, result.id)
            for publication, result in zip(publications, results, strict=True)
            if isinstance(result, Published) and result.is_new and not publication.frame.is_end
        ]
        if publications:
            has_failed = any(isinstance(result, BrokerUnavailable) for result in results)
            self.publish_counts.note_attempt(len(new), seconds, has_failed=has_failed)
        if signals.event_published.receivers:
            for publication, event_id in new:
                _tell(self._app, publication.channel, publication.frame, event_id, seconds)
        for name in {publication.channel for publication in publications}:
            _give_way(self._subscriptions.get(name))
        return results

    def start_run(self, name: str, items: Iterable[Any], plan: Plan) -> Run:
        """Publish items in the background: see :meth:`.Channel.publish_from`. May wait for the broker."""
        self.check_open()
        drain_at_exit()  # which ends it, too
        task = start_task(self, name, self.bounds(name), self.settings, items, plan)
        self.tasks.add(name, task)
        return Run(task)

    def cancel_run(self, name: str) -> bool:
        """Cancel the run of a channel, in whichever process it is: see :meth:`.Channel.cancel`. May wait."""
        self.check_open()
        task = self.tasks.get(name)  # before that: from then on another may begin
        was_running = self.broker.cancel_run(name, self.bounds(name))
        if task is not None:
            task.lose_channel()
        return was_running

    def stop(self) -> None:
        """End what runs here, as the process stops, and release the broker. Idempotent; may wait a second."""
        until = time.monotonic() + STOP_SECONDS
        for task in self.tasks.all():
            task.stop(Stop.INTERRUPTED, max(0.0, until - time.monotonic()))
        self.roster.stop()
        self.broker.close()

    def close(self) -> None:
        """Close the broker for good. Idempotent; may wait two seconds."""
        self.stop()
        self._is_closed = True

    def check_open(self) -> None:
        """Check that :meth:`close` has not been called.

        :raises RuntimeError: where it has.
        """
        if self._is_closed:
            raise RuntimeError("this SSE is closed, and publishes nothing any more: do that before sse.close()")

    def subscribe(
        self,
        names: Sequence[str],
        timeout: Duration | None = None,
        last_event_id: str | None = None,
        reader: Reader | None = None,
        seconds: float | None = None,
        since: str | None = None,
        **given: Any,
    ) -> SseEmitter:
        """Open a new client's stream of these channels. May wait for the broker, within limits.

        It has ended already where nothing is left for the client, as its channels are complete.

        :param last_event_id: None takes what the current request has.
        :param reader: the reader of the stream, where that is known.
        :param seconds: after so many it ends in any case.
        :param since: where it begins without an id; None is as the options of each channel say.
        :param given: further arguments of its :class:`.SseEmitter`.
        """
        parse_since("now" if since is None else since)
        emitter = _make_emitter(timeout, last_event_id, given)
        stream = stream_of(emitter)
        subscriptions = [self.subscription(name) for name in names]
        begins = [self._options.of(name).since if since is None else since for name in names]
        arrivals = arrive(emitter.last_event_id, subscriptions, begins)
        if arrivals is None:
            return _needless(emitter)
        if stream.last_event_id == END:  # something has begun anew since
            stream.last_event_id = ""
        if arrivals and all(each.has_end for each in arrivals) and (stream.settings.bare or not self.broker.is_shared):
            stream.let_finish()  # its client would not come back, or, on memory://, find nothing then
        if seconds is not None:
            stream.end_by(SCHEDULER.clock() + seconds)
        if reader is not None:
            stream.reader = reader
            self._streams.enlist(stream)
        stream.limits = tuple(limit for name in names if (limit := self._limit(name)) is not None)
        Replay(emitter, subscriptions, None if arrivals else emitter.last_event_id, self._pages, arrivals).begin()
        return emitter

    def resume(self, emitter: SseEmitter, names: Sequence[str], position: str) -> Replay:
        """Go on with a stream of these channels that another process had. Never waits.

        :param position: what its client has had, as an id.
        """
        stream_of(emitter).limits = tuple(limit for name in names if (limit := self._limit(name)) is not None)
        replay = Replay(emitter, [self.subscription(name) for name in names], position, self._pages)
        replay.begin()
        return replay

    def counts(self) -> ChannelCounts:
        """Return how many clients each channel that has any has here, and how many events it has had for them."""
        every = self._all_subscriptions()
        found = sorted((each.name, len(each.members), each.delivered) for each in every if len(each.members))
        return {
            "channels": {name: clients for name, clients, _ in found},
            "events": {name: events for name, _, events in found},
        }

    def streams(self, name: str | None) -> Iterator[Stream]:
        """Iterate over the streams of one channel in this process, or of all channels; one may come more than once."""
        if name is None:
            subscriptions = list(self._all_subscriptions())
        else:
            subscription = self._subscriptions.get(name)
            subscriptions = [] if subscription is None else [subscription]
        for subscription in subscriptions:
            for member in subscription.members:
                yield member.stream

    def _all_subscriptions(self) -> Iterator[ProcessSubscription]:
        with self._lock:
            references = self._subscriptions.valuerefs()
        return (found for reference in references if (found := reference()) is not None)

    def bounds(self, name: str) -> Bounds:
        """Return how much is kept of a channel."""
        options, usual = self._options.of(name), self._bounds
        if options.history is None and options.history_seconds is None:
            return usual
        return Bounds(
            usual.events if options.history is None else options.history,
            usual.seconds if options.history_seconds is None else options.history_seconds,
        )

    def _limit(self, name: str) -> Limit | None:
        maximum = self._options.of(name).max_clients
        if maximum is None:
            return None
        new = Limit(f"max_clients={maximum} of the channel {name!r}", maximum)
        with self._lock:
            return self._limits.setdefault(name, new)


def _tell(app: Any, name: str, frame: Frame, event_id: str, seconds: float) -> None:
    about = {"channel": name, "id": event_id, "event": frame.name, "size": len(frame.payload)}
    signals.send(signals.event_published, app, seconds=seconds, **about)


def _give_way(subscription: ProcessSubscription | None) -> None:
    """Let others run, and wait where the channel gets more than can be delivered here."""
    if subscription is None:
        yield_if_due()
    else:
        subscription.wait_for_room()


def _needless(emitter: SseEmitter) -> SseEmitter:
    stream_of(emitter).outgoing.is_needless = True
    emitter.complete()
    return emitter


def _make_emitter(timeout: Duration | None, last_event_id: str | None, given: Mapping[str, Any]) -> SseEmitter:
    if last_event_id is not None and not isinstance(last_event_id, str):
        raise TypeError(f"last_event_id is a str, as the client sent it, not {last_event_id!r}")
    emitter = SseEmitter(timeout, **given)
    stream = stream_of(emitter)
    if timeout is None:
        stream.deadlines.lifetime_part = CHANCE.uniform(1 - LIFETIME_SPREAD, 1 + LIFETIME_SPREAD)
    if last_event_id is not None:
        stream.last_event_id = last_event_id
    return emitter
