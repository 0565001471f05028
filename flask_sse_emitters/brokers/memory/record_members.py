"""Who reads one channel that is kept in memory."""

from __future__ import annotations

import math

from ..base import MemberChange


class RecordMembers:
    """The members of one channel. The lock of its log guards them.

    This process tells which it has. So does a process that has given the channel to this one, as long as that goes on:
    where it has not renewed its members in time, they are gone. Who is told of by both is gone once neither has them.

    :ivar seconds: for which a process has its members count.
    :ivar lapse_at: when those of the other process are gone, by the scheduler's clock.
    """

    __slots__ = ("_here", "_there", "lapse_at", "seconds")

    def __init__(self) -> None:
        self._here: dict[str, None] = {}  # as this process tells; in the order in which they have come
        self._there: dict[str, None] = {}  # as another one tells
        self.seconds = 0.0
        self.lapse_at = math.inf

    def __bool__(self) -> bool:
        return bool(self._here or self._there)

    def names(self) -> list[str]:
        """Return all members, each once."""
        return [*(self._there | self._here)]

    def change(self, change: MemberChange, until: float = math.inf) -> list[tuple[str, str]]:
        """Note who has come, and who is gone. Return what is to be told of that: ``join`` or ``leave``, and who.

        :param until: when those are gone that another process has, unless it renews them; infinity: this one tells.
        """
        held, others = (self._here, self._there) if until == math.inf else (self._there, self._here)
        all_others = set(held).difference(change.come) if change.is_all else change.gone
        come = [each for each in dict.fromkeys(change.come) if each not in held]
        gone = [each for each in dict.fromkeys(all_others) if each in held]
        held.update(dict.fromkeys(come))
        for each in gone:
            del held[each]
        if until < math.inf:
            self.renew(until)
        told = [("join", each) for each in come] + [("leave", each) for each in gone]
        return [(name, each) for name, each in told if each not in others]

    def renew(self, until: float) -> None:
        """Have those that another process has count until then."""
        self.lapse_at = until if self._there else math.inf

    def lapse(self, now: float) -> list[tuple[str, str]]:
        """Let those of the other process go, if their time is over. Return what is to be told of that."""
        if self.lapse_at > now:
            return []
        gone = [each for each in self._there if each not in self._here]
        self._there, self.lapse_at = {}, math.inf
        return [("leave", each) for each in gone]
