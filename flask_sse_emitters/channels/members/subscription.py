"""One channel's clients in this process, where the channel has members."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...broadcast.member import Member
from ...brokers import Broker
from ...config.settings import Settings
from ..process_subscription import ProcessSubscription

if TYPE_CHECKING:
    from .roster import Roster


class MembersSubscription(ProcessSubscription):
    """A :class:`.ProcessSubscription` that notes whose streams come and go.

    :param roster: of the app.
    """

    __slots__ = ("_roster",)

    def __init__(
        self,
        name: str,
        broker: Broker,
        settings: Settings,
        before_subscribing: Callable[[], object],
        roster: Roster,
    ) -> None:
        self._roster = roster
        super().__init__(name, broker, settings, before_subscribing)

    def enlist(self, member: Member) -> bool:
        """Put a member in the list, and note whose stream it is. Return False where that has ended, or is here."""
        stream = member.stream
        is_enlisted = super().enlist(member)
        if is_enlisted:
            self._roster.arrive(self.name, stream)
            if stream.close_reason is not None:  # and had left before it was noted
                self._roster.depart(self.name, stream)
        return is_enlisted

    def leave(self, member: Member) -> None:
        """Take out a member, and note that its stream is over. Idempotent."""
        super().leave(member)
        self._roster.depart(self.name, member.stream)
