"""How many clients there are in all processes: each tells Redis of its own, and that it still lives.

What a process has said holds for PRESENCE_SECONDS, so that one that was killed takes its clients with it. One that ends
in order takes back what it has said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import redis

from ...runtime.locks import native_lock
from ...runtime.scheduler import FIGURES, SCHEDULER
from .client import Client
from .health import Health
from .scripts import ABOUT, COUNT, PRESENCE_SECONDS, Names

#: What has changed is told after so many seconds, and all of it is confirmed after so many.
COUNT_AFTER, COUNT_EVERY = 0.25, 4.0

#: Seconds until what was refused is told again.
TELL_AGAIN = 1.0

#: So many channels are named in one command.
NAMES_AT_ONCE = 200


class Presence:
    """What Redis is told of the clients here.

    :param process: stands for this process.
    :param count: how many clients a channel has here.
    :param about: see :attr:`.Broker.about`. It is called on a helper thread: it may go through all clients.
    :param wake: is called, from any thread, when there is something to tell.
    """

    def __init__(
        self,
        names: Names,
        process: str,
        health: Health,
        count: Callable[[str], int],
        about: Callable[[], Mapping[str, Any] | None],
        wake: Callable[[], object],
    ) -> None:
        self._about = about
        self._wake = wake
        self._keys = [names.processes, names.process + process]
        self._process = process
        self._health = health
        self._count = count
        self._lock = native_lock()
        self._changed: dict[str, None] = {}
        self._figures: list[Any] | None = None  # what this process says of itself, to be told
        self._finds_figures = False  # a helper thread is about to find them out
        self._is_listed = False  # Redis was told anything
        self.is_known = False  #: Redis knows of all clients here
        self.is_told = False  #: it was told at least, since the connection began
        self._tell_at = self._confirm_at = self._about_at = 0.0

    def change(self, channel: str) -> bool:
        """The channel has more clients, or fewer; from any thread. Whether whoever tells is to be woken."""
        with self._lock:
            first = not self._changed
            self._changed[channel] = None
        return first

    def begin_anew(self) -> None:
        """With another connection, perhaps to another server."""
        self.is_known = self.is_told = False
        self._tell_at = self._confirm_at = self._about_at = 0.0

    @property
    def due(self) -> float:
        """When there is something to tell, by ``time.monotonic``."""
        is_new = self._changed or not self.is_known or self._figures is not None
        return self._tell_at if is_new else self._confirm_at

    def tell(self, client: Client, channels: Collection[str], now: float, yield_now: Callable[[], object]) -> None:
        """Tell Redis what has changed, or all where it knows none, if that is due.

        :param channels: all that have clients here, and maybe some that had.
        :param yield_now: is called between commands.
        :raises redis.RedisError: where Redis cannot be reached.
        """
        if now < self.due:
            return
        self._confirm_at = now + COUNT_EVERY
        figures, self._figures = self._figures or [], None
        if self.is_known and not self._changed and not channels and not self._health.is_refused:
            return
        if now >= self._about_at:  # however often clients come and go
            self._about_at = now + COUNT_EVERY
            self._find_figures()
        with self._lock:
            changed, self._changed = self._changed, {}
        if not self.is_known:
            changed = dict.fromkeys([*changed, *list(channels)])
        try:
            known = self._tell(client, list(changed), figures, yield_now)
        except (redis.RedisError, OSError) as error:  # it cannot be written to: events may come all the same
            is_away = not isinstance(error, redis.ResponseError)
            if is_away and not client.is_cluster:
                raise
            known, self._tell_at = False, now + (COUNT_EVERY if is_away else TELL_AGAIN)
            self._health.fails("counting clients", error, self._keys)
        else:
            self._tell_at = now + COUNT_AFTER
            self._about_at = self._about_at if known else 0.0
            self._health.works("counting clients")
            if figures or any(map(self._count, channels)):  # only that is a write that a full Redis refuses
                self._health.writes()
        self.is_known, self.is_told = known or not any(map(self._count, channels)), True

    def leave(self, client: Client) -> None:
        """Take this process off the list.

        :raises redis.RedisError: where that fails.
        """
        if self._is_listed:
            client.run(COUNT, self._keys, [self._process, round(PRESENCE_SECONDS * 1000), 1])

    def _find_figures(self) -> None:
        if not self._finds_figures:
            self._finds_figures = True
            SCHEDULER.run(self._note_figures, FIGURES)

    def _note_figures(self) -> None:
        try:
            about = self._about()
            if about is not None:
                self._figures = [ABOUT, json.dumps(about)]
                self._wake()
        finally:
            self._finds_figures = False

    def _tell(
        self, client: Client, channels: Sequence[str], about: Sequence[Any], yield_now: Callable[[], object]
    ) -> bool:
        """:return: whether Redis knows of all clients here now."""
        known = self._is_listed = True
        for index in range(0, len(channels) or 1, NAMES_AT_ONCE):
            begins = not self.is_known and not index
            figures = [each for name in channels[index : index + NAMES_AT_ONCE] for each in (name, self._count(name))]
            arguments = [
                self._process,
                round(PRESENCE_SECONDS * 1000),
                int(begins),
                *([] if index else about),
                *figures,
            ]
            was_there = client.run(COUNT, self._keys, arguments)
            known = known and bool(was_there or begins or index)
            yield_now()
        return known
