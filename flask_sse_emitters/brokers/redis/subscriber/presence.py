"""The clients of all processes, counted: each process reports its own to Redis, and that it still lives.

A report holds for PRESENCE_SECONDS, so the clients of a process that was killed go with it. A process that ends in
order takes its report back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

import redis

from ....runtime.locks import native_lock
from ....runtime.scheduler import FIGURES, SCHEDULER
from ...listening.health import COUNTING, Health
from ...listening.topics import Topics
from ..connections.client import Client
from ..messages import ABOUT, NAMES_PER_COMMAND, PRESENCE_SECONDS, KeyNames
from ..scripts.processes import COUNT

#: Seconds after which changes are reported, and after which all of it is confirmed.
COUNT_AFTER, COUNT_EVERY = 0.25, 4.0

#: Seconds until a report that was refused is sent again.
RETRY_SECONDS = 1.0


class Reported(Enum):
    """How much Redis knows of the clients here, by what was sent since the connection began."""

    NOTHING = auto()
    INCOMPLETE = auto()  #: the report was refused, or Redis has lost what was reported before
    ALL = auto()


class Presence:
    """Reports the clients of this process. Only the subscriber's thread may call, but for :meth:`change`.

    :param process: the id of this process.
    :param about: see :attr:`.Broker.about`. It is called on a helper thread: it may go through all clients.
    :param wake: is called, from any thread, when there is something to report.
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
        self._keys = [names.processes, names.process + process]
        self._process = process
        self._health = health
        self._topics = topics
        self._about = about
        self._wake = wake
        self._yield_now = yield_now
        self._lock = native_lock()
        self._changed: dict[str, None] = {}  # channels
        self._figures: list[Any] | None = None  # what this process reports of itself, where that is to be sent
        self._is_collecting = False  # a helper thread is about to collect these
        self._is_listed = False  # Redis has had a report
        self.reported = Reported.NOTHING
        self._report_at = self._confirm_at = self._collect_at = 0.0

    def change(self, channel: str) -> bool:
        """Note, from any thread, that the channel has more clients, or fewer.

        :return: whether the subscriber is to be woken.
        """
        with self._lock:
            is_first = not self._changed
            self._changed[channel] = None
        return is_first

    def reset(self) -> None:
        """Begin again with another connection, perhaps to another server."""
        self.reported = Reported.NOTHING
        self._report_at = self._confirm_at = self._collect_at = 0.0

    @property
    def due(self) -> float:
        """The time at which to :meth:`report`, by ``time.monotonic``."""
        is_new = self._changed or self.reported is not Reported.ALL or self._figures is not None
        return self._report_at if is_new else self._confirm_at

    def report(self, client: Client, now: float) -> None:
        """Report to Redis what has changed, or all where it knows none, if that is due.

        :raises redis.RedisError: where Redis cannot be reached.
        """
        if now < self.due:
            return
        self._confirm_at = now + COUNT_EVERY
        figures, self._figures = self._figures or [], None
        knows_all = self.reported is Reported.ALL
        if knows_all and not (self._changed or len(self._topics) or self._health.is_refused):
            return
        if now >= self._collect_at:  # however often clients come and go
            self._collect_at = now + COUNT_EVERY
            self._collect_figures()
        with self._lock:
            changed, self._changed = self._changed, {}
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

    def _collect_figures(self) -> None:
        if not self._is_collecting:
            self._is_collecting = True
            SCHEDULER.run(self._take_figures, FIGURES)

    def _take_figures(self) -> None:
        try:
            about = self._about()
            if about is not None:
                self._figures = [ABOUT, json.dumps(about)]
                self._wake()
        finally:
            self._is_collecting = False

    def _send(self, client: Client, channels: Sequence[str], figures: Sequence[Any]) -> bool:
        """:return: whether Redis knows of all clients here now."""
        knows_all = self._is_listed = True
        for index in range(0, len(channels) or 1, NAMES_PER_COMMAND):
            replaces = self.reported is not Reported.ALL and not index
            counts = [
                each
                for name in channels[index : index + NAMES_PER_COMMAND]
                for each in (name, self._topics.clients(name))
            ]
            arguments = [self._process, round(PRESENCE_SECONDS * 1000), int(replaces)]
            was_there = client.run(COUNT, self._keys, [*arguments, *([] if index else figures), *counts])
            knows_all = knows_all and bool(was_there or replaces or index)
            self._yield_now()
        return knows_all
