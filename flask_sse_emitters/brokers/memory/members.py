"""Who reads channels, where these are kept in memory: the members of this process alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..base import Broker, MemberChange, Publication, member_frame
from .inheritance import Inheritance
from .record_state import ChannelFrozen
from .records import ChannelHeld, Records

#: The members of each channel that has any, in the order in which they have come.
MembersByChannel: TypeAlias = dict[str, dict[str, None]]


class MembersInMemory(Broker):
    """The part of :class:`.MemoryBroker` that knows who is here."""

    _here: MembersByChannel
    _records: Records
    inheritance: Inheritance

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
        return [*self._here.get(channel, ())]

    def _tell_members(self, change: MemberChange) -> None:
        """Only one thread of the process calls, and any reads."""
        members = self._here.setdefault(change.channel, {})
        all_others = set(members).difference(change.come) if change.is_all else change.gone
        gone = [each for each in all_others if each in members]
        come = [each for each in dict.fromkeys(change.come) if each not in members]
        members.update(dict.fromkeys(come))
        for each in gone:
            del members[each]
        if not members:
            del self._here[change.channel]
        if not change.is_quiet:
            told = [("join", each) for each in come] + [("leave", each) for each in gone]
            events = [Publication(change.channel, member_frame(*each), change.bounds) for each in told]
            self._publish_of_members(change.channel, events)

    def _publish_of_members(self, channel: str, events: Sequence[Publication]) -> None:
        while True:
            try:
                self._records.use(channel, lambda record: record.publish(events, unless_complete=True))
            except ChannelHeld:
                self.inheritance.wait(channel)
            except ChannelFrozen:  # another process has it by now, and tells who is there
                return
            else:
                return
