"""Who reads the channels that are kept in memory: in this process, and in one that has given its channels to it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

from ...errors import BrokerUnavailable
from ..base import Broker, MemberChange, Publication, member_frame
from .moves.handover import Answer, Handover, Request
from .record import Record
from .record_members import RecordMembers
from .record_state import ChannelFrozen

#: What stands for this process, the only one that tells its own broker.
HOLDER = "memory.here"


class MembersInMemory(Broker):
    """The part of :class:`.MemoryBroker` that knows who is here."""

    handover: Handover
    _member_seconds = 0.0  # for which a process has its members count

    def renew_members(self, holder: str, seconds: float, *, was_away: bool = False) -> str:  # noqa: ARG002 - it is alone
        """Return what stands for this process: see :meth:`.Broker.renew_members`."""
        self._member_seconds = seconds
        if self.handover.successor is not None:  # which has been told of them
            self._do(Request("renew_members", seconds=seconds))
        return HOLDER

    def tell_members(self, holder: str, changes: Sequence[MemberChange]) -> list[Exception | None]:
        """Note who has come, and who is gone: see :meth:`.Broker.tell_members`."""
        return [self._tell_members(change) if holder == HOLDER else None for change in changes]

    def members(self, channel: str) -> list[str]:
        """Return the members of a channel: see :meth:`.Broker.members`."""
        return [*cast("Sequence[str]", self._do(Request("members", channel)))]

    def _tell_members(self, change: MemberChange) -> Exception | None:
        try:
            self._do(Request("tell_members", change.channel, seconds=self._member_seconds, change=change))
        except BrokerUnavailable as error:
            return error
        return None

    @abstractmethod
    def _do(self, request: Request) -> Answer: ...


def tell_members(record: Record, change: MemberChange, seconds: float, until: float = math.inf) -> bool | None:
    """Note who has come to a channel, and who is gone, and tell its readers. Return None where it is forgotten.

    :param seconds: for which a process has its members count.
    :param until: as that of :meth:`.RecordMembers.change`.
    """
    with record.log.guard:
        if record.is_forgotten:
            return None
        if record.is_frozen:
            raise ChannelFrozen
        members = record.members = record.members or RecordMembers()
        members.seconds = seconds
        told = members.change(change, until)
        events = [Publication(record.name, member_frame(*each), change.bounds) for each in told]
        record.publish(() if change.is_quiet else events, unless_complete=True)
        record.may_be_due_sooner = True
        return True


def members_of(record: Record) -> Sequence[str]:
    """Return the members of a channel."""
    with record.log.guard:
        if record.is_frozen:
            raise ChannelFrozen
        return () if record.members is None else record.members.names()
