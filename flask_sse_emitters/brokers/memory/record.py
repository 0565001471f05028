"""One channel that is kept in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...config.settings import DEFAULTS
from ...runtime.scheduler import Scheduler
from ...wire.frame import CHANNEL_END, Frame
from ..base import (
    INTERRUPTED,
    ChannelState,
    Listener,
    MemberChange,
    Publication,
    Published,
    RunLost,
    Start,
    member_frame,
)
from ..event_ids import new_epoch, read_id
from ..event_log import Alias, Bounds, Log, former_of
from .agenda import NO_GROUP
from .audience import Audience
from .record_members import RecordMembers
from .record_state import ChannelFrozen, Lease, RecordState, merge

#: Seconds for which a key is remembered.
KEY_SECONDS = 300.0

#: Seconds for which a channel is remembered after its last client has left, or it was last asked for, though nothing is
#: kept of it: a client that comes back then has missed nothing. No more than its events would be kept for.
LINGER_SECONDS = 60.0

#: So many of these seconds may be after its events have expired, where it was used before that.
GRACE_SECONDS = 2.0


class Record:
    """One channel. The lock of its log guards all of it."""

    __slots__ = (
        "_bounds",
        "_keyed_at",
        "_keys",
        "_published_at",
        "_run",
        "_scheduler",
        "_used_at",
        "audience",
        "group",
        "is_forgotten",
        "is_frozen",
        "log",
        "may_be_due_sooner",
        "members",
        "name",
    )

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        self.name = name
        self.log = Log(new_epoch(), 0, scheduler.clock)
        self.audience = Audience(self.log.guard, scheduler)  #: to whom it delivers
        self.is_forgotten = False  #: for good: another record takes its place
        self.is_frozen = False  #: what changes it raises ChannelFrozen
        self.group = NO_GROUP  #: in the agenda of the broker
        self.may_be_due_sooner = True  #: than the agenda has it
        self.members: RecordMembers | None = None  #: once it had any
        self._bounds = Bounds(DEFAULTS.history, DEFAULTS.history_seconds)
        self._scheduler = scheduler
        self._keys: dict[str, tuple[float, str]] = {}  # with their time and the id of their event, by age
        self._keyed_at = -math.inf  # the newest of them
        self._run: Lease | None = None
        self._published_at = -math.inf
        self._used_at = scheduler.clock()  # when its last listener left, or its state was last asked for

    @classmethod
    def restore(cls, state: RecordState, scheduler: Scheduler) -> Record:
        """Make the record of what another process has kept."""
        record = cls(state.name, scheduler)
        record._restore(state)
        return record

    def inherit(self, state: RecordState) -> bool:
        """Put what another process has kept before what was published here. Return False where it is forgotten.

        Listeners start again, in another log, unless nothing was ever published there.
        """
        with self.log.guard:
            if self.is_forgotten:
                return False
            if state.is_blank:
                self.log.aliases = (*self.log.aliases, Alias(state.log.epoch, 0, 0))
            else:
                self._restore(merge(state, self._snapshot(), self._scheduler.clock))
                self.audience.restart(Start(self.log, self.log.newest))
            return True

    def _restore(self, state: RecordState) -> None:
        log = Log.restore(state.log, self._scheduler.clock)
        log.has_run = state.run is not None
        log.guard = self.log.guard  # which guards the record as well
        self.log = log
        self._bounds, self._run = state.bounds, state.run
        self._keys = dict(state.keys)
        self._keyed_at = max((at for at, _ in self._keys.values()), default=-math.inf)
        self._published_at, self._used_at = state.published_at, state.used_at
        self.may_be_due_sooner = True
        if state.members:
            members = self.members = self.members or RecordMembers()
            members.seconds = state.member_seconds
            until = self._scheduler.clock() + state.member_seconds
            members.change(MemberChange(self.name, state.members), until)

    def freeze(self) -> RecordState | None:
        """Have nothing published here from now on. Return all that it has; None where it is forgotten."""
        with self.log.guard:
            if self.is_forgotten:
                return None
            self.is_frozen = True
            return self._snapshot()

    def _snapshot(self) -> RecordState:
        _forget_keys(self._keys, self._scheduler.clock())
        return RecordState(
            name=self.name,
            log=self.log.snapshot(),
            bounds=self._bounds,
            keys=dict(self._keys),
            run=self._run,
            published_at=self._published_at,
            used_at=self._used_at,
            members=[] if self.members is None else self.members.names(),
            member_seconds=0.0 if self.members is None else self.members.seconds,
        )

    def thaw(self) -> None:
        """Have events published here again, in a new epoch: the last one may have gone on elsewhere."""
        with self.log.guard:
            if self.is_frozen:
                self.is_frozen, self.may_be_due_sooner = False, True
                if not self.log.is_complete:  # else what comes next begins one
                    self.log.go_on_in(new_epoch(), former_of(self.log))

    def follow(self, frame: Frame, event_id: str) -> None:
        """Keep and deliver what was published elsewhere with this id, unless something is missing before it."""
        with self.log.guard:
            position = read_id(event_id)
            if position is None or position.offset != self.log.newest + 1:
                return
            if position.epoch != self.log.epoch:
                self.log.go_on_in(position.epoch, former_of(self.log))
            stamped = self.log.keep(frame, self._bounds, self._scheduler.clock())
            self._run = None if stamped.is_end else self._run
            self.audience.put(stamped)

    def publish(
        self, publications: Iterable[Publication], *, unless_complete: bool = False
    ) -> list[Published | Exception] | None:
        """Publish events in one step: see :meth:`.Broker.publish_many`. None where it is forgotten.

        :param unless_complete: publish nothing where the channel is complete.
        """
        with self.log.guard:
            if self.is_forgotten:
                return None
            if self.is_frozen:
                raise ChannelFrozen
            now = self._scheduler.clock()
            if self._keys:
                _forget_keys(self._keys, now)
            if self._run is not None:
                self._end_dead_run(now)
            if unless_complete and self.log.is_complete:
                return []
            return [self._publish(publication, now) for publication in publications]

    def _publish(self, publication: Publication, now: float) -> Published | Exception:
        _, frame, bounds, key, run = publication
        if key is not None and key in self._keys:
            return Published(self._keys[key][1], is_new=False)
        if run is not None:
            if self._run is None or self._run.name != run:
                return RunLost(self.name)
            self._run = self._run._replace(until=now + self._run.seconds)
        if self.log.is_complete and frame.is_end:
            return Published(str(self.log.position(self.log.newest)), is_new=False)
        if bounds is not None and bounds != self._bounds:
            self._bounds, self.may_be_due_sooner = bounds, True
        event_id = self._append(frame, now)
        if key is not None:
            self._keys[key] = now, event_id
            self._keyed_at = now
        return Published(event_id, is_new=True)

    def _append(self, frame: Frame, now: float) -> str:
        stamped = self.log.append(frame, self._bounds, now)
        self._published_at = now
        self.may_be_due_sooner |= self.group == NO_GROUP
        if stamped.is_end:
            self._run, self.may_be_due_sooner = None, True
        self.audience.put(stamped)
        return stamped.id

    def state(self) -> ChannelState | None:
        """Return its state; None where it is forgotten."""
        with self.log.guard:
            if self.is_forgotten:
                return None
            self._used_at = now = self._scheduler.clock()
            self._end_dead_run(now)
            return ChannelState.of(self.log)

    def start_run(self, name: str, seconds: float) -> str | None:
        """Give it to a run. Return its epoch then, "" where another run has it, None where it is forgotten."""
        with self.log.guard:
            if self.is_forgotten:
                return None
            if self.is_frozen:
                raise ChannelFrozen
            self._used_at = now = self._scheduler.clock()
            self._end_dead_run(now)
            if self._run is None:
                self._run, self.may_be_due_sooner = Lease(name, seconds, now + seconds), True
                self.log.begin_anew()
                self.log.has_run = True
            return self.log.epoch if self._run.name == name else ""

    def renew_run(self, name: str, seconds: float) -> bool:
        """Let the run have it for longer. Return whether it still had it."""
        with self.log.guard:
            if self.is_frozen:
                raise ChannelFrozen
            now = self._scheduler.clock()
            self._end_dead_run(now)
            if self._run is None or self._run.name != name:
                return False
            self._run, self.may_be_due_sooner = self._run._replace(until=now + seconds), True
            return True

    def cancel_run(self, bounds: Bounds | None) -> str:
        """Take it from its run, and end it. Return the id of the end; "" where there was no run."""
        with self.log.guard:
            if self.is_frozen:
                raise ChannelFrozen
            now = self._scheduler.clock()
            self._end_dead_run(now)
            if self._run is None:
                return ""
            if bounds is not None:
                self._bounds = bounds
            return self._append(CHANNEL_END, now)

    def _end_dead_run(self, now: float) -> None:
        if self._run is not None and self._run.until <= now and not self.is_frozen:
            self._append(INTERRUPTED, now)
            self._append(CHANNEL_END, now)

    def add(self, listener: Listener) -> Start | None:
        """Deliver what comes to the listener. Return where that starts; None where it is forgotten."""
        with self.log.guard:
            if self.is_forgotten:
                return None
            self._end_dead_run(self._scheduler.clock())
            self.audience.listeners = (*self.audience.listeners, listener)
            return Start(self.log, self.log.newest)

    def remove(self, listener: Listener) -> None:
        """Deliver nothing more to the listener."""
        with self.log.guard:
            others = tuple(other for other in self.audience.listeners if other is not listener)
            self.audience.listeners = others
            self._used_at, self.may_be_due_sooner = self._scheduler.clock(), True

    @property
    def due(self) -> float:
        """When to look at it again: when its run or some members are dead, or what it keeps is too old, or all left."""
        run, members = self._run, self.members
        dies_at = math.inf if run is None else run.until
        if members is not None and not self.is_frozen:
            dies_at = min(dies_at, members.lapse_at)
        if dies_at < math.inf:
            return dies_at
        events, seconds = self._bounds
        seconds = seconds or (math.inf if events else DEFAULTS.history_seconds)
        expiry = self._published_at + seconds
        lingers = self._used_at + min(seconds, LINGER_SECONDS)
        if self._used_at < expiry:
            lingers = min(lingers, expiry + GRACE_SECONDS)
        return max(expiry, lingers, self._keyed_at + KEY_SECONDS)

    def look(self) -> bool:
        """Forget what is too old, and the channel itself when nobody needs it; end a dead run, let dead members go.

        :return: whether it is to be looked at again. Else it is forgotten, or comes up again when something happens.
        """
        with self.log.guard:
            now = self._scheduler.clock()
            _forget_keys(self._keys, now)
            self._end_dead_run(now)
            if self.members is not None and not self.is_frozen:
                for told in self.members.lapse(now):
                    if not self.log.is_complete:
                        self._append(member_frame(*told), now)
            self.log.forget_old()
            is_over = self.due <= now
            if is_over and not self.audience.listeners and not self.members:
                self.is_forgotten = True
            self.may_be_due_sooner |= not is_over
            return not (is_over or self.is_forgotten)


def _forget_keys(keys: dict[str, tuple[float, str]], now: float) -> None:
    while keys:
        oldest = next(iter(keys))
        if keys[oldest][0] + KEY_SECONDS > now:
            return
        del keys[oldest]
