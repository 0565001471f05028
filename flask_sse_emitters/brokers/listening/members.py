"""What a server keeps of members: which holders live, and what each of them has of which channel.

A holder stands for one process for as long as that renews itself in time. One whose time is over is never used again:
where its process lives after all, it goes on as another one, so that who lets the old one go takes nothing of the new.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from ...errors import BrokerUnavailable
from ..base import MemberChange

log = logging.getLogger("flask_sse_emitters.members")

#: Who lets a dead holder go has so many seconds before another process does.
CLAIM_SECONDS = 5.0

#: A dead holder is told of as gone in steps of so many members, so that none holds up a server for long.
GONE_AT_ONCE = 500


class BaseMembers(ABC):
    """The members of one process, at a server. Any thread may call, and waits for the server, within limits."""

    def renew(self, holder: str, seconds: float, *, was_away: bool) -> str:
        """Renew a holder, and let dead ones go: see :meth:`.Broker.renew_members`."""
        renewed, dead = self._renew(holder, seconds, was_away=was_away)
        try:
            for other, channels in dead.items():
                self._let_go(other, channels)
        except BrokerUnavailable as error:  # in a while, another process tries again
            log.debug("the members of a dead process were not let go: %s", error)
        return renewed

    def tell(self, holder: str, changes: Sequence[MemberChange]) -> list[Exception | None]:
        """Note who has come, and who is gone: see :meth:`.Broker.tell_members`."""
        results: list[Exception | None] = []
        for change in changes:
            try:
                while self._tell(holder, change):
                    pass
                results.append(None)
            except BrokerUnavailable as error:
                results.append(error)
        return results

    @abstractmethod
    def list(self, channel: str) -> list[str]:
        """Return the members of a channel: see :meth:`.Broker.members`."""

    def _let_go(self, holder: str, channels: Sequence[str]) -> None:
        for error in filter(None, self.tell(holder, [MemberChange(name, (), (), True) for name in channels])):
            raise error
        self._forget(holder)

    @abstractmethod
    def _renew(self, holder: str, seconds: float, *, was_away: bool) -> tuple[str, Mapping[str, Sequence[str]]]:
        """Return the holder that was renewed, or a new one, and the channels of each that this process is to let go."""

    @abstractmethod
    def _tell(self, holder: str, change: MemberChange) -> bool:
        """Note some of a change. Return whether there is more of it."""

    @abstractmethod
    def _forget(self, holder: str) -> None:
        """Forget a holder, which has nothing any more."""
