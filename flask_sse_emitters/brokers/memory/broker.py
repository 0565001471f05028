"""``memory://``: the broker of a single process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...runtime.fork import reset_after_fork
from ...runtime.scheduler import SCHEDULER, Scheduler
from ...wire.frame import Frame
from ..base import (
    Broker,
    ChannelState,
    Listener,
    MemberChange,
    Publication,
    Published,
    Start,
    by_channel,
    member_frame,
)
from ..event_log import Bounds
from .record import Record
from .records import Records


class MemoryBroker(Broker):
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
        [published] = self.publish_many([Publication(channel, frame, bounds, key)])
        assert isinstance(published, Published), "only a run can be refused"
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
        return self._records.use(channel, Record.state)

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run: see :meth:`.Broker.start_run`."""
        return self._records.use(channel, lambda record: record.start_run(run, seconds))

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        """Let the run have the channel for longer: see :meth:`.Broker.renew_run`."""
        return self._ask(channel, lambda record: record.renew_run(run, seconds))

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, and end it: see :meth:`.Broker.cancel_run`."""
        return self._ask(channel, lambda record: record.cancel_run(bounds))

    def renew_members(self, holder: str, seconds: float, *, was_away: bool = False) -> str:  # noqa: ARG002 - it is alone
        """Return what stands for this process: see :meth:`.Broker.renew_members`."""
        return "memory.here"

    def tell_members(self, holder: str, changes: Sequence[MemberChange]) -> list[Exception | None]:
        """Note who has come, and who is gone: see :meth:`.Broker.tell_members`."""
        for change in changes if holder == "memory.here" else ():
            self._tell_members(change)
        return [None] * len(changes)

    def members(self, channel: str) -> list[str]:
        """Return the members of a channel: see :meth:`.Broker.members`."""
        return [*self._members.get(channel, ())]

    def subscribe(self, channel: str, listener: Listener) -> Start:
        """Deliver the channel's events to the listener: see :meth:`.Broker.subscribe`."""
        return self._records.use(channel, lambda record: record.add(listener))

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener: see :meth:`.Broker.unsubscribe`."""
        record = self._records.get(channel)
        if record is not None:
            record.remove(listener)
            self._records.look_later(record)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all is delivered: see :meth:`.Broker.look_again`."""
        record = self._records.get(channel)
        if record is None:
            done()
        else:
            record.when_delivered(done)

    def newest(self, channel: str) -> int:
        """Return the offset of the channel's newest event."""
        record = self._records.find(channel)
        self._records.look_later(record)
        return record.log.newest

    def close(self) -> None:
        """Forget all channels. An event that is published later gets no id that was given before."""
        self._records.clear()
        self._members.clear()

    def _reset(self) -> None:
        self._records = Records(self._scheduler)
        self._members: dict[str, dict[str, None]] = {}

    def _tell_members(self, change: MemberChange) -> None:
        """Only one thread of the process calls, and any reads."""
        members = self._members.setdefault(change.channel, {})
        all_others = set(members).difference(change.come) if change.is_all else change.gone
        gone = [each for each in all_others if each in members]
        come = [each for each in dict.fromkeys(change.come) if each not in members]
        members.update(dict.fromkeys(come))
        for each in gone:
            del members[each]
        if not members:
            del self._members[change.channel]
        if not change.is_quiet:
            told = [("join", each) for each in come] + [("leave", each) for each in gone]
            events = [Publication(change.channel, member_frame(*each), change.bounds) for each in told]
            self._records.use(change.channel, lambda record: record.publish(events, unless_complete=True))

    def _publish(self, channel: str, publications: Sequence[Publication]) -> list[Published | Exception]:
        return self._records.use(channel, lambda record: record.publish(publications))

    def _ask(self, channel: str, ask: Callable[[Record], bool]) -> bool:
        """Ask the record of a channel; False where there is none."""
        record = self._records.get(channel)
        if record is None:
            return False
        answer = ask(record)
        self._records.go_on(record)
        return answer
