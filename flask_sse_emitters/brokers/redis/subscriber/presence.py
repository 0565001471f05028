"""The clients of all processes, counted: each process reports its own to Redis, and that it still lives.

A report holds for PRESENCE_SECONDS, so the clients of a process that was killed go with it. A process that ends in
order takes its report back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

import redis

from ...listening.presence import COUNT_AFTER, COUNT_EVERY, RETRY_SECONDS, BasePresence
from ...listening.topics import Topics
from ...remote.health import COUNTING, Health
from ..connections.client import Client
from ..messages import ABOUT, NAMES_PER_COMMAND, PRESENCE_SECONDS, KeyNames
from ..scripts.processes import COUNT


class Reported(Enum):
    """How much Redis knows of the clients here, by what was sent since the connection began."""

    NOTHING = auto()
    INCOMPLETE = auto()  #: the report was refused, or Redis has lost what was reported before
    ALL = auto()


class Presence(BasePresence):
    """Reports to Redis: see :class:`.BasePresence`, also for the other parameters.

    :param yield_now: lets other greenlets run; called between commands.
    """

    def __init__(
        self,
        names: KeyNames,
        process: str,
        health: Health,
        topics: Topics,
        about: Callable[[], Mapping[str, Any] | None],
        wake: Callable[[], object],
        yield_now: Callable[[], object],
    ) -> None:
        super().__init__(process, health, topics, about, wake)
        self._keys = [names.processes, names.process + process]
        self._yield_now = yield_now
        self._is_listed = False  # Redis has had a report
        self.reported = Reported.NOTHING

    @property
    def has_reported(self) -> bool:
        """Whether Redis knows of all clients here, by what was sent since the connection began."""
        return self.reported is Reported.ALL

    def reset(self) -> None:
        """Begin again with another connection, perhaps to another server."""
        super().reset()
        self.reported = Reported.NOTHING

    def report(self, client: Client, now: float) -> None:
        """Report to Redis what has changed, or all where it knows none, if that is due.

        :raises redis.RedisError: where Redis cannot be reached.
        """
        if now < self.due:
            return
        self._confirm_at = now + COUNT_EVERY
        figures, self._figures = self._figures, None
        knows_all = self.has_reported
        if knows_all and not (self._changed or len(self._topics) or self._health.is_refused):
            return
        self._collect_if_due(now)
        changed = self._take_changed()
        channels = self._topics.names()
        names = list(changed) if knows_all else list(dict.fromkeys([*changed, *channels]))
        try:
            knows_all = self._send(client, names, figures)
        except (redis.RedisError, OSError) as error:  # it cannot be written to: events may come all the same
            is_away = not isinstance(error, redis.ResponseError)
            if is_away and not client.is_cluster:
                raise
            knows_all, self._report_at = False, now + (COUNT_EVERY if is_away else RETRY_SECONDS)
            self._health.failed(COUNTING, error, self._keys)
        else:
            self._report_at = now + COUNT_AFTER
            self._collect_at = self._collect_at if knows_all else 0.0
            self._health.worked(COUNTING)
            if figures or self._has_clients(channels):  # only that is a write that a full Redis refuses
                self._health.wrote()
        self.reported = Reported.ALL if knows_all or not self._has_clients(channels) else Reported.INCOMPLETE

    def leave(self, client: Client) -> None:
        """Take back what this process has reported.

        :raises redis.RedisError: where that fails.
        """
        if self._is_listed:
            client.run(COUNT, self._keys, [self._process, round(PRESENCE_SECONDS * 1000), 1])

    def _has_clients(self, channels: Sequence[str]) -> bool:
        return any(map(self._topics.clients, channels))

    def _send(self, client: Client, channels: Sequence[str], figures: str | None) -> bool:
        """:return: whether Redis knows of all clients here now."""
        knows_all = self._is_listed = True
        for index in range(0, len(channels) or 1, NAMES_PER_COMMAND):
            replaces = not self.has_reported and not index
            counts = [
                each
                for name in channels[index : index + NAMES_PER_COMMAND]
                for each in (name, self._topics.clients(name))
            ]
            arguments = [self._process, round(PRESENCE_SECONDS * 1000), int(replaces)]
            if figures is not None and not index:
                arguments += [ABOUT, figures]
            was_there = client.run(COUNT, self._keys, [*arguments, *counts])
            knows_all = knows_all and bool(was_there or replaces or index)
            self._yield_now()
        return knows_all
