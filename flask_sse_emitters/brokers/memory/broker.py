"""``memory://``: the broker of a single process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

from ...errors import BrokerUnavailable
from ...runtime.fork import reset_after_fork
from ...runtime.scheduler import SCHEDULER, Scheduler
from ...wire.frame import Frame
from ..base import (
    ChannelState,
    Listener,
    Publication,
    Published,
    Start,
    by_channel,
)
from ..event_log import Bounds
from .members import MembersInMemory, members_of, tell_members
from .moves.handover import Answer, Handover, Request
from .moves.inheritance import Inheritance
from .record import Record
from .record_state import ChannelFrozen
from .records import ChannelHeld, Records


class MemoryBroker(MembersInMemory):
    """Keeps everything in this process. A forked child begins without any channel.

    :param url: ``memory://``.
    :param scheduler: keeps the time, for the age of events and keys.
    """

    is_shared = False

    def __init__(self, url: str = "memory://", *, scheduler: Scheduler = SCHEDULER, **_options: object) -> None:
        if url.rstrip("/") != "memory:":
            raise ValueError(f"memory:// takes nothing more, as in {url!r}")
        self._scheduler = scheduler
        self._reset()
        reset_after_fork(self._reset)

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        """Publish an event: see :meth:`.Broker.publish`."""
        [published] = self.publish_many((Publication(channel, frame, bounds, key),))
        if isinstance(published, Exception):
            raise published
        return published

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events: see :meth:`.Broker.publish_many`."""
        if len(publications) == 1:
            return self._publish(publications[0].channel, publications)
        results: dict[int, Published | Exception] = {}
        for channel, indexes in by_channel(publications).items():
            found = self._publish(channel, [publications[index] for index in indexes])
            results.update(zip(indexes, found, strict=True))
        return [results[index] for index in range(len(publications))]

    def state(self, channel: str) -> ChannelState:
        """Return the state of a channel: see :meth:`.Broker.state`."""
        while True:
            try:
                return self._records.use(channel, Record.state)
            except ChannelHeld:
                self.inheritance.wait(channel)

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run: see :meth:`.Broker.start_run`."""
        return bool(self._do(Request("start_run", channel, run=run, seconds=seconds)))

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        """Let the run have the channel for longer: see :meth:`.Broker.renew_run`."""
        return self._do(Request("renew_run", channel, run=run, seconds=seconds)) is True

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, and end it: see :meth:`.Broker.cancel_run`."""
        return bool(self._do(Request("cancel_run", channel, bounds=bounds)))

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        """Deliver the channel's events to the listener: see :meth:`.Broker.subscribe`."""
        while True:
            try:
                return self._records.use(channel, lambda record: record.add(listener))
            except ChannelHeld:
                if self.inheritance.begin_later(channel, listener):
                    return None

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener: see :meth:`.Broker.unsubscribe`."""
        self.inheritance.forget(channel, listener)
        self._records.remove(channel, listener)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all is delivered: see :meth:`.Broker.look_again`."""
        record = self._records.get(channel)
        if record is not None:
            record.audience.when_delivered(done)
        elif not (self._records.holds(channel) and self.inheritance.call_later(channel, done)):
            done()

    def newest(self, channel: str) -> int | None:
        """Return the offset of the channel's newest event; None while that may come from another process."""
        try:
            record = self._records.find(channel)
        except ChannelHeld:
            return None
        self._records.look_later(record)
        return record.log.newest

    def answer(self, request: Request) -> Answer:
        """Do what a process asks that has given its channels to this one. May wait, where :meth:`waits` says so.

        :raises BrokerUnavailable: where it has waited in vain.
        """
        return self._do(request._replace(until=self._scheduler.clock() + request.seconds))

    def waits(self, channel: str) -> bool:
        """Return whether another process is about to give this channel to this one, or has it by now."""
        return self.handover.successor is not None or self._records.holds(channel)

    @property
    def is_heir(self) -> bool:
        """Whether another process is about to give its channels to this one."""
        return self._records.is_held

    @property
    def has_channels(self) -> bool:
        """Whether anything is known of any channel."""
        return len(self._records) > 0

    def close(self) -> None:
        """Forget all channels. An event that is published later gets no id that was given before."""
        self._records.clear()

    def _reset(self) -> None:
        self._records = Records(self._scheduler)
        #: What this process gets from one that stops.
        self.inheritance = Inheritance(self._records, self._scheduler)
        #: What it gives to another one, as it stops itself.
        self.handover = Handover(self._records)

    def _publish(self, channel: str, publications: Sequence[Publication]) -> list[Published | Exception]:
        try:
            record = self._records.find(channel)
            results = record.publish(publications)
            if results is not None:
                self._records.go_on(record)
                return results
        except (ChannelHeld, ChannelFrozen):
            pass  # another process is about to give the channel to this one, or has it by now
        try:
            answer = self._do(Request("publish_many", channel, publications))
        except BrokerUnavailable as error:
            return [error] * len(publications)
        return list(cast("Sequence[Published | Exception]", answer))

    def _do(self, request: Request) -> Answer:
        """Do it here, or have it done where the channel is by now."""
        while True:
            try:
                return self._do_here(request)
            except ChannelHeld:
                self.inheritance.wait(request.channel)
            except ChannelFrozen:
                answer = self.handover.ask(request)
                if answer is not None:
                    return answer

    def _do_here(self, request: Request) -> Answer:
        do, channel, publications, run, seconds, _, change, until = request
        if do == "publish_many":
            return self._records.use(channel, lambda record: record.publish(publications))
        if do == "start_run":
            return self._records.use(channel, lambda record: record.start_run(run, seconds))
        if change is not None:
            return self._records.use(channel, lambda record: tell_members(record, change, seconds, until))
        if do == "renew_members":
            if until < math.inf:
                self._records.renew_members(until)
            if self.handover.successor is not None:
                raise ChannelFrozen
            return True
        record = self._records.get(channel)
        if record is None:
            if self._records.holds(channel):
                raise ChannelHeld
            if self.handover.successor is not None:
                raise ChannelFrozen
            return () if do == "members" else False
        answer = _do_with(record, request)
        self._records.go_on(record)
        return answer


def _do_with(record: Record, request: Request) -> Answer:
    """Do what is done only where the channel is known."""
    if request.do == "members":
        return members_of(record)
    if request.do == "renew_run":
        return record.renew_run(request.run, request.seconds)
    return record.cancel_run(request.bounds)
