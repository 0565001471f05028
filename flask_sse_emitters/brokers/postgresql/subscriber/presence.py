"""The clients of all processes, counted: each process reports its own to the database, and that it still lives.

A report holds for some seconds, so the clients of a process that was killed go with it. A process that ends in order
takes its report back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...listening.presence import COUNT_AFTER, COUNT_EVERY, RETRY_SECONDS, BasePresence
from ...remote.health import COUNTING
from ..client.errors import was_refused
from ..statements import REPORT


class Presence(BasePresence):
    """Reports to PostgreSQL: see :class:`.BasePresence`, also for the parameters."""

    has_reported = False
    is_listed = False  #: the database has had a report

    def reset(self) -> None:
        """Begin again with another connection, perhaps to another server."""
        super().reset()
        self.has_reported = False

    def report(self, run: Callable[[str, Sequence[Any]], list[Any]], now: float) -> None:
        """Report what has changed, or all where the database knows none, if that is due.

        :param run: runs a statement.
        :raises psycopg.Error: where the database cannot be reached.
        """
        if now < self.due:
            return
        self._confirm_at = now + COUNT_EVERY
        if self.has_reported and not (self._changed or len(self._topics) or self._health.is_refused):
            return
        self._collect_if_due(now)
        figures, self._figures = self._figures, None
        changed = self._take_changed()
        names = list(changed) if self.has_reported else self._topics.names()
        counts = [self._topics.clients(name) for name in names]
        self.is_listed = True
        try:
            [(was_known,)] = run(REPORT, [self._process, figures, names, counts, not self.has_reported])
        except Exception as error:  # it cannot be written to: events may come all the same
            if not was_refused(error):
                raise
            self.has_reported, self._report_at = False, now + RETRY_SECONDS
            self._health.failed(COUNTING, error)
            return
        is_lost = self.has_reported and not was_known  # with the tables that a crash empties
        self.has_reported, self._report_at = not is_lost, now + COUNT_AFTER
        self._collect_at = 0.0 if is_lost else self._collect_at
        self._health.worked(COUNTING)
        self._health.wrote()
