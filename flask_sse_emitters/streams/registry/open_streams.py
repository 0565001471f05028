"""The register of an app's open streams in this process: their limits, their readers, their counts."""

from __future__ import annotations

import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from heapq import nlargest
from typing import Any, Literal, TypedDict

from ... import signals
from ...config.settings import Settings
from ...errors import CloseReason, TooManyClients
from ...runtime.fork import reset_after_fork
from ...runtime.gevent_loop import yield_if_due
from ...runtime.locks import native_lock
from ...runtime.scheduler import SCHEDULER, Scheduler
from ...types import MovedFigures, Outlets, SlowStream
from ..emitter import SseEmitter, stream_of
from ..ends import ClientSees
from ..outgoing import IDLE
from ..stream import Stream
from .identity import OwnedStreams
from .limits import Limit, limit_of_process, limits_of_reader
from .moves import Moves
from .stream_log import log_begin
from .thread_use import ThreadUse
from .traffic import Traffic

log = logging.getLogger("flask_sse_emitters.streams")

#: So many streams are counted before others may run.
COUNTED_AT_ONCE = 100

#: That streams are refused is logged once in so many seconds, for each limit.
REFUSED_LOG_SECONDS = 60.0

#: So many of the slowest clients are shown.
SLOW_SHOWN = 20


class StreamCounts(TypedDict):
    """The part of :class:`.Stats` that the streams are counted for."""

    clients: int
    outlets: Outlets
    declined: dict[str, int]
    moved: MovedFigures
    deliveries: int
    bytes: int
    replayed: int
    gaps: int
    dropped: int
    pending: int
    slow: list[SlowStream]


class StreamRegistry:
    """The open streams of one app in this process. Every method may be called from any thread, and none blocks.

    :param app: sends the signals; where it is None, none are sent.
    """

    def __init__(self, settings: Settings, scheduler: Scheduler = SCHEDULER, app: Any = None) -> None:
        self.settings = settings
        self.scheduler = scheduler
        self.app = app
        #: Returns whether the app publishes anything in the background, which is to finish as such a stream is.
        self.has_runs: Callable[[], bool] = lambda: False
        #: Is called when the process exits in order, after the last stream. May wait a second.
        self.at_exit: Callable[[], object] = lambda: None
        #: Returns for how long streams that are to finish may go on, once the worker stops.
        self.seconds_to_finish: Callable[[], float] = lambda: 0.0
        self._reset()
        ALL.add(self)
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self.lock = native_lock()
        self._open: dict[Stream, SseEmitter] = {}
        self._refused: dict[Stream, SseEmitter] = {}  # that are still to be told of a gap
        self._limit_of_all = (limit_of_process(self.settings.max_clients),)  # one tuple for most streams
        self._limits: dict[str, Limit] = {}  # of those who have any stream, by their owner
        self._owned: OwnedStreams[Stream] = OwnedStreams()
        self.thread_use = ThreadUse()
        self._logged: dict[str, float] = {}  # when a refusal was last logged, by the limit
        self.drained_by: float | None = None  #: when the last stream is cut; None until the registry drains
        self.finished_by = 0.0  #: when the last stream that is to finish is cut, once the registry drains
        self.runs_by = 0.0  #: when runs are interrupted, once the registry drains
        self.is_ending = False  #: some streams are still to be ended by draining
        self.opened = 0  #: since the beginning, without those refused
        self.refused_by: Counter[str] = Counter()  #: streams, by the name of the limit
        self.denied = 0  #: requests for channels, by a rule or for their origin
        self.closed: Counter[str] = Counter()  #: by the value of their close_reason
        self.moves = Moves()
        self.traffic = Traffic()
        self._dropped = 0  # events, of streams that are over

    def __len__(self) -> int:
        return len(self._open)

    @property
    def max_clients(self) -> int:
        """So many streams there may be in this process: ``SSE_MAX_CLIENTS``, or fewer with too few files."""
        return self._limit_of_all[0].maximum

    @property
    def refused(self) -> int:
        """So many streams were sent away, because of any limit."""
        return sum(self.refused_by.copy().values())

    @property
    def is_draining(self) -> bool:
        """Whether the worker stops, and new streams end at once."""
        return self.drained_by is not None

    def streams(self) -> list[Stream]:
        """Return the open streams."""
        with self.lock:
            return list(self._open)

    def streams_of(self, identity: str) -> list[Stream]:
        """Return the streams of this reader, also those that no response carries yet."""
        with self.lock:
            return self._owned.of(identity)

    def enlist(self, stream: Stream) -> None:
        """Remember whose a new stream is until it has left."""
        stream.registry = self
        with self.lock:
            self._owned.add(stream)

    def admit(self, emitter: SseEmitter, address: str | None = None) -> int | None:
        """Count a stream in until it has left; end it at once where the worker stops, or a limit is reached.

        What has ended already is written all the same.

        :param address: of the client.
        :return: the client's ``retry:``, in milliseconds; None where it gets none.
        """
        stream = stream_of(emitter)
        stream.address = None if self.settings.max_clients_per_address is None else address
        full, is_refused = self._count_in(stream, emitter)
        if is_refused:
            self._refuse(stream, None if self.is_draining else full)
            if stream.outgoing.tells_gap:
                self._refused[stream] = emitter
                self._leave_unless_written(stream)
            return stream.settings.spread_retry()
        log_begin(stream, address)
        if not emitter.is_open:
            self._leave_unless_written(stream)
        if self.app is not None:
            signals.send(signals.emitter_opened, self.app, emitter=emitter)
        return stream.settings.first_retry()

    def adopt(self, emitter: SseEmitter, address: str | None) -> Literal["stopping", "limit"] | None:
        """Count in a stream that another process gives to this one.

        :return: why that cannot be: the worker stops, or a limit is reached; None where it is counted.
        """
        if self.moves.is_leaving:
            return "stopping"
        stream = stream_of(emitter)
        stream.address = None if self.settings.max_clients_per_address is None else address
        full, is_refused = self._count_in(stream, emitter, is_new=False)
        if is_refused:
            return "stopping" if full is None else "limit"
        self.moves.note_in()
        _signal_later(self, signals.emitter_moved, emitter=emitter, direction="in")
        return None

    def note_moved_out(self, stream: Stream) -> None:
        """Count the stream as given to another process."""
        emitter = self._count_out(stream, has_moved=True)
        if emitter is not None:
            self.moves.note_out()
            _signal_later(self, signals.emitter_moved, emitter=emitter, direction="out")

    def leave(self, stream: Stream) -> None:
        """Count a stream as over, and its client as gone. Idempotent."""
        emitter = self._count_out(stream)
        if emitter is None:
            return
        about = {"emitter": emitter, "reason": stream.close_reason, "error": stream.error}
        _signal_later(self, signals.emitter_closed, **about)

    def note_gap(self, stream: Stream, requested: str) -> None:
        """Count that the client, which came with this id, is told that it has missed something for good."""
        self.traffic.count_gap()
        with self.lock:
            emitter = self._open.get(stream) or self._refused.get(stream)
        if emitter is not None:  # it has left meanwhile
            _signal_later(self, signals.gap_sent, emitter=emitter, requested=requested)

    def note_denied(self) -> None:
        """Count a request for channels that a rule has denied, or that came from another origin."""
        with self.lock:
            self.denied += 1

    def counts(self) -> StreamCounts:
        """Count the streams, by their writers; what they were given, and what waits for them. O(streams).

        A greenlet lets others run meanwhile.
        """
        with self.lock:
            streams = list(self._open)
            dropped = self._dropped
        handed_off, declined, late = 0, Counter[str](), []
        for number, stream in enumerate(streams):
            if not number % COUNTED_AT_ONCE:
                yield_if_due()
            outgoing = stream.outgoing
            handed_off += outgoing.direct is not None
            writer = outgoing.writer
            if writer is not None and writer.declined:
                declined[writer.declined] += 1
            # An idle one has nothing pending but what is just being delivered to it.
            if outgoing.state is not IDLE or outgoing.backlog.dropped:
                late.append((stream, stream.pending))
        slow = (each for each in nlargest(SLOW_SHOWN, late, key=_lateness) if any(_lateness(each)))
        return {
            "clients": len(streams),
            "outlets": {"handed_off": handed_off, "server": len(streams) - handed_off},
            "declined": dict(declined),
            "deliveries": self.traffic.deliveries,
            "bytes": self.traffic.bytes,
            "replayed": self.traffic.replayed,
            "gaps": self.traffic.gaps,
            "moved": self.moves.figures(),
            "dropped": dropped + sum(stream.outgoing.backlog.dropped for stream, _ in late),
            "pending": sum(pending for _, pending in late),
            "slow": [_describe(*each, now=self.scheduler.clock()) for each in slow],
        }

    def _count_in(self, stream: Stream, emitter: SseEmitter, *, is_new: bool = True) -> tuple[Limit | None, bool]:
        """Count a stream in. Return the limit that is reached, and whether it is refused: also as the worker stops."""
        identities = () if stream.reader is None else stream.reader.identities
        own = limits_of_reader(self.settings, identities, stream.address)
        with self.lock:
            own = [self._limits.get(limit.owner, limit) for limit in own]
            limits = (*self._limit_of_all, *stream.limits, *own) if stream.limits or own else self._limit_of_all
            full = next((each for each in limits if each.is_reached), None) if emitter.is_open else None
            is_refused = full is not None or (self.is_draining and emitter.is_open)
            if not is_refused:
                self._open[stream] = emitter
                stream.limits = limits
                self._owned.add(stream)  # again: it may have ended, and left, with something to write
                self.opened += is_new
                for limit in limits:
                    limit.count += 1
                self._limits.update((limit.owner, limit) for limit in own)
        return full, is_refused

    def _count_out(self, stream: Stream, *, has_moved: bool = False) -> SseEmitter | None:
        """Count a stream out. Return its emitter; None where it was not counted.

        :param has_moved: it is not closed, as another process has it.
        """
        self.thread_use.leave(stream)
        with self.lock:
            self._owned.remove(stream)
            self._refused.pop(stream, None)
            emitter = self._open.pop(stream, None)
            if emitter is not None:
                for limit in stream.limits:
                    limit.count -= 1
                    if not limit.count:
                        self._limits.pop(limit.owner, None)
                self._dropped += stream.outgoing.backlog.dropped
                if stream.close_reason is not None and not has_moved:
                    self.closed[stream.close_reason.value] += 1
            return emitter

    def _refuse(self, stream: Stream, full: Limit | None) -> None:
        """End a stream before it begins: but for what was prepended, as a client that comes again needs its position.

        :param full: the limit that it would exceed; None where the worker stops.
        """
        sees: ClientSees | None = "break" if stream.settings.bare else None  # it would take nothing for all
        if full is None:
            stream.end(CloseReason.SHUTDOWN, pending="keep_first", sees=sees)
            return
        error = TooManyClients(f"{full.text} streams{full.owner} are open already")
        stream.end(CloseReason.ERROR, error, pending="keep_first", sees=sees)
        now = self.scheduler.clock()
        with self.lock:
            self.refused_by[full.name] += 1
            is_logged = now >= self._logged.get(full.text, -math.inf) + REFUSED_LOG_SECONDS
            if is_logged:
                self._logged[full.text] = now
        if is_logged:
            log.warning(
                "more streams%s are asked for than %s; they end at once, and clients try again later",
                full.owner,
                full.text,
            )

    def _leave_unless_written(self, stream: Stream) -> None:
        """Count it out where no server writes one that had ended before it began: nothing else would."""

        def leave() -> None:
            if stream.outgoing.writer is None:
                self.leave(stream)

        self.scheduler.call_at(self.scheduler.clock() + self.settings.attach_seconds, leave)


def _signal_later(registry: StreamRegistry, signal: Any, **about: Any) -> None:
    """Send a signal in the background, with the app's context pushed: receivers may block."""
    if registry.app is not None and signal.has_receivers_for(registry.app):
        registry.scheduler.run(partial(_signal, registry, signal, about))


def _signal(registry: StreamRegistry, signal: Any, about: dict[str, Any]) -> None:
    with registry.settings.context():
        signals.send(signal, registry.app, **about)


def _describe(stream: Stream, pending: int, now: float) -> SlowStream:
    reader, outgoing = stream.reader, stream.outgoing
    return {
        "channels": sorted({name for member in outgoing.members if (name := member.list.name) is not None}),
        "identity": None if reader is None else next(iter(reader.identities), None),
        "pending": pending,
        "dropped": outgoing.backlog.dropped,
        "outlet": "server" if outgoing.direct is None else "handed_off",
        "seconds": round(now - stream.deadlines.born, 1),
    }


def _lateness(late: tuple[Stream, int]) -> tuple[int, int]:
    stream, pending = late
    return pending, stream.outgoing.backlog.dropped


#: The registries of every app of the process.
ALL: weakref.WeakSet[StreamRegistry] = weakref.WeakSet()
