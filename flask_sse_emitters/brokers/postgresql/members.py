"""The members of this process, in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..base import MemberChange
from ..event_ids import new_epoch
from ..listening.members import BaseMembers
from .requests import Requests
from .statements import FORGET_HOLDER, LIST_MEMBERS, RENEW_MEMBERS, bounds_parameters, milliseconds


class Members(BaseMembers):
    """The members of this process: see :class:`.BaseMembers`."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def list(self, channel: str) -> list[str]:
        """Return the members of a channel: see :meth:`.Broker.members`."""
        rows = self._requests.ask("say who the members are", LIST_MEMBERS, [channel])
        return [json.loads(member) for (member,) in rows]

    def _renew(self, holder: str, seconds: float, *, was_away: bool) -> tuple[str, Mapping[str, Sequence[str]]]:
        parameters = [holder, new_epoch() + new_epoch(), milliseconds(seconds), was_away]
        (renewed, _), *rows = self._requests.ask("renew the members", RENEW_MEMBERS, parameters)
        dead: dict[str, list[str]] = {}
        for name, channel in rows:
            dead.setdefault(name, []).extend([] if channel is None else [channel])
        return renewed, dead

    def _tell(self, holder: str, change: MemberChange) -> bool:
        come, gone = ([json.dumps(each) for each in some] for some in (change.come, change.gone))
        told = [come, gone, change.is_all, change.is_quiet, *bounds_parameters(change.bounds)]
        return self._requests.tell_members(change.channel, holder, told)

    def _forget(self, holder: str) -> None:
        self._requests.ask("forget a process", FORGET_HOLDER, [holder])
