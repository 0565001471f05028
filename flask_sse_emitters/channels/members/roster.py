"""The members of all channels of one app, as far as they are in this process, and what the broker is told of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import islice

from ...brokers import Bounds, Broker, MemberChange
from ...config.settings import DEFAULTS, Settings
from ...errors import BrokerUnavailable, CloseReason
from ...runtime.calls import weakly
from ...runtime.fork import reset_after_fork
from ...runtime.locks import native_lock
from ...runtime.scheduler import MEMBERS, SCHEDULER, Scheduler
from ...streams.stream import Stream
from ..options import OptionTable
from .here import Here

log = logging.getLogger("flask_sse_emitters.members")

#: A process says so often that it lives, and is dead for the others after this: so its members are gone within 15.
RENEW_SECONDS, LEASE_SECONDS = 3.0, 9.0

#: A process that could not say that for so long does not judge others: they perhaps could not, either.
AWAY_SECONDS = 6.0

#: Streams begin within so many seconds, mostly: what comes in that time is told in one step.
BEGIN_SECONDS = 0.05

#: What was not told is told again after so many seconds.
RETRY_SECONDS = 1.0

#: A client that this process sent away is told to wait for as long as the grace is, at most, and then has to connect.
CONNECT_SECONDS = 2.0

#: Where the broker has lost everything, each process has so many seconds to tell it in silence which members it had
#: before. New ones are told after that. So no ``join`` is published for a member that another process already had.
SETTLE_SECONDS = 5.0

#: All is told again after so many seconds, so that the broker need not keep what no process knows of any more.
AGAIN_SECONDS = 86_400.0

#: So many channels are told of in one go.
CHANNELS_AT_ONCE = 100


class Roster:
    """The members of an app's channels in this process. Any thread may call, and only :meth:`members` waits.

    :param bounds: returns how much is kept of a channel.
    """

    def __init__(
        self,
        broker: Broker,
        options: OptionTable,
        settings: Settings,
        bounds: Callable[[str], Bounds],
        scheduler: Scheduler = SCHEDULER,
    ) -> None:
        self._broker = broker
        self._options = options
        self._bounds = bounds
        self._scheduler = scheduler
        retry = DEFAULTS.retry if settings.retry is None else settings.retry
        self._grace = 2 * (retry or 0) / 1000
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self._channels: dict[str, Here] = {}  # those with a stream here, and those with a member
        self._untold: dict[str, None] = {}  # those with something to tell the broker
        self._agenda: list[
            tuple[float, str, str]
        ] = []  # when to look at a channel, or at one identity there, as a heap
        self._wakes_at = math.inf  # when the next timer calls
        self._is_working = self._is_stopped = self._has_logged = False
        self._is_doubtful = False  # what the broker knows
        self._holder = ""  # what stands for this process at the broker
        self._renewed_at = self._told_all_at = self._settled_at = 0.0
        self._renew_at = 0.0

    def has_members(self, channel: str) -> bool:
        """Return whether the channel has members.

        :raises NotImplementedError: where it has, and the broker knows none.
        """
        has_members = self._options.of(channel).members is True
        if has_members and type(self._broker).tell_members is Broker.tell_members:
            self._broker.tell_members("", ())  # raises
        return has_members

    def members(self, channel: str) -> list[str]:
        """Return who reads the channel, in all processes: see :meth:`.Channel.members`. May wait for the broker."""
        if not self.has_members(channel):
            raise RuntimeError(f"the channel {channel!r} has no members: say sse.channel({channel!r}, members=True)")
        found = set(self._broker.members(channel))
        with self._lock:
            here = self._channels.get(channel)
            found.update(() if here is None else here.identities)
        return sorted(found)

    def arrive(self, channel: str, stream: Stream) -> None:
        """Note a stream of a channel that has members."""
        identity = None if stream.reader is None else stream.reader.identity_in(channel)
        when = self._scheduler.clock() + BEGIN_SECONDS
        with self._lock:
            here = self._channels.get(channel)
            if here is None:
                here = self._channels[channel] = Here()
            here.arrive(stream, identity)
            heappush(self._agenda, (when, channel, ""))
        self._wake_at(when)

    def depart(self, channel: str, stream: Stream) -> None:
        """Note that a stream is over. Its reader is gone unless another one begins in time. Idempotent."""
        is_sent_away = stream.close_reason is not CloseReason.DISCONNECTED
        now = self._scheduler.clock()
        until = now + self._grace + (CONNECT_SECONDS if is_sent_away else 0.0)
        with self._lock:
            here = self._channels.get(channel)
            identity = None if here is None else here.depart(stream, until)
            if identity is not None:
                heappush(self._agenda, (until, channel, identity))
            elif here is not None and here.is_needless:
                heappush(self._agenda, (now, channel, ""))  # for when it is looked at next, as it soon is
        if identity is not None:
            self._wake_at(until)

    def stop(self) -> None:
        """Let the members of this process go, as it stops, unless they come to another one. May wait for the broker."""
        with self._lock:
            self._is_stopped = True
            holder = self._holder if any(here.has_told for here in self._channels.values()) else ""
        if holder and self._broker.status()["state"] == "ok":
            with suppress(BrokerUnavailable):
                self._broker.renew_members(holder, max(LEASE_SECONDS, self._grace + CONNECT_SECONDS))

    def _wake_at(self, when: float) -> None:
        with self._lock:
            if self._is_stopped or when >= self._wakes_at:
                return
            self._wakes_at = when
        self._scheduler.call_at(when, weakly(self._wake))

    def _wake(self) -> None:
        with self._lock:
            self._wakes_at = math.inf
            begins = not (self._is_working or self._is_stopped)
            self._is_working |= begins
        if begins:
            self._scheduler.run(weakly(self._work), MEMBERS)

    # On the helper thread.

    def _work(self) -> None:
        now = self._scheduler.clock()
        due = now + RETRY_SECONDS
        try:
            due = self._tell(now)
        except BrokerUnavailable as error:  # what was told may still arrive, after what is told later
            log.debug("members could not be told: %s", error)
            self._is_doubtful, self._renew_at = True, now
        except Exception:
            if not self._has_logged:
                self._has_logged = True
                log.exception("members cannot be told; it is tried again, and this is logged once")
        finally:
            with self._lock:
                self._is_working = False
        if due < math.inf:
            self._wake_at(max(due, now + BEGIN_SECONDS))  # what comes meanwhile is one step, too

    def _tell(self, now: float) -> float:
        """Tell what has changed, and that this process lives. Return when to do that again."""
        self._look(now)
        with self._lock:
            if not self._channels:
                self._holder = ""  # nobody misses it: the next time it begins anew
                return math.inf
        if not self._holder or now >= self._renew_at or self._untold:  # what is told to one that is dead, is lost
            self._renew(now)
        while names := self._next_untold(now):
            self._tell_some(names)
        with self._lock:
            due = self._settled_at if self._untold else math.inf
            return min(due, self._renew_at, self._agenda[0][0] if self._agenda else math.inf)

    def _look(self, now: float) -> None:
        """Find out in which channels streams have begun, or the time of an identity is over."""
        with self._lock:
            looked: dict[str, Here] = {}
            while self._agenda and self._agenda[0][0] <= now:
                _, name, identity = heappop(self._agenda)
                here = self._channels.get(name)
                if here is not None:
                    looked[name] = here
                    here.let_go(identity, now)
            for name, here in looked.items():
                if here.note_begun():
                    heappush(self._agenda, (now + BEGIN_SECONDS, name, ""))
                self._keep(name, here)

    def _renew(self, now: float) -> None:
        before, was_away = self._holder, bool(self._holder) and now > self._renewed_at + AWAY_SECONDS
        holder = self._broker.renew_members(before, max(LEASE_SECONDS, self._grace), was_away=was_away)
        with self._lock:
            self._holder = holder
            self._renewed_at = self._scheduler.clock()
            self._renew_at = self._renewed_at + RENEW_SECONDS
            is_new = bool(before) and holder != before
            if is_new or was_away or self._is_doubtful or now > self._told_all_at + AGAIN_SECONDS:
                self._is_doubtful = False
                has_lost_all = is_new and holder.partition(".")[0] != before.partition(".")[0]
                self._told_all_at = now
                if has_lost_all:
                    self._settled_at = now + SETTLE_SECONDS
                for name, here in self._channels.items():
                    if here.has_told:
                        here.tell_again(before if is_new else None, is_quiet=has_lost_all)
                        self._untold[name] = None

    def _next_untold(self, now: float) -> list[str]:
        """Return some channels with something to tell the broker now."""
        with self._lock:
            is_settled = now >= self._settled_at
            names = (name for name in self._untold if is_settled or self._channels[name].is_quiet)
            return list(islice(names, CHANNELS_AT_ONCE))

    def _tell_some(self, names: Sequence[str]) -> None:
        with self._lock:
            told = [(name, self._channels[name]) for name in names]
            changes = [here.change(name, self._bounds(name)) for name, here in told]
        results = self._broker.tell_members(self._holder, changes)
        with self._lock:
            for (_, here), change, result in zip(told, changes, results, strict=True):
                if result is None:
                    here.note_told(change)
        for error in filter(None, results):
            raise error
        for name, here in told:
            while here.former:  # after the present one was told: so nobody is gone meanwhile
                for error in filter(
                    None, self._broker.tell_members(here.former[0], [MemberChange(name, (), (), True)])
                ):
                    raise error
                del here.former[0]
        with self._lock:
            for name, here in told:
                self._keep(name, here)

    def _keep(self, name: str, here: Here) -> None:
        """Keep a channel for as long as it is of any use. With the lock held."""
        if here.has_changed:
            self._untold[name] = None
            return
        self._untold.pop(name, None)
        if here.is_needless:
            del self._channels[name]
