"""Whether this process hears what it is told, and how often it looks for itself.

Behind a pooler that gives each transaction another session, what a connection listens to is lost. So a process tells
itself something now and then, on another connection. Where it does not hear that, it polls.
"""

from __future__ import annotations

import logging
import time

from ....config.settings import CHANCE
from ...event_ids import new_epoch
from ..client.database import Database
from ..client.wakeups import ANNOUNCE, TEST

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")

#: Seconds between two tests, and after which one that was not heard has failed.
TEST_SECONDS, DEAF_SECONDS = 10.0, 3.0

#: Seconds between two looks of who hears; some less, or more, so that processes do not all come at once.
LOOK_SECONDS, SPREAD = 0.85, 0.15

#: Seconds between two looks of who does not: these while something is found, then more and more.
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS, POLL_GROWTH = 0.05, 0.5, 1.3


class Hearing:
    """The test of one process, and the time of its next look. Only the subscriber's thread may call.

    :param url: that the listening connection was opened with, as it may be shown.
    """

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url = url
        self._has_warned = False
        self.begin()

    def begin(self) -> None:
        """Begin with a new connection: until it has heard something, nobody knows whether it will."""
        self._nonce = ""
        self._is_heard = False
        self._test_at = 0.0
        self._tested_at = 0.0
        self._poll_seconds = FIRST_POLL_SECONDS
        self._look_at = 0.0

    @property
    def due(self) -> float:
        """The time at which to look, or to test, by ``time.monotonic``."""
        return min(self._look_at, self._test_at)

    def test(self, now: float) -> None:
        """Tell this process something, if that is due.

        :raises psycopg.Error: where the database cannot be reached.
        """
        if self._nonce and now > self._tested_at + DEAF_SECONDS:
            self._give_up()
        if now >= self._test_at:
            self._test_at, self._tested_at = now + TEST_SECONDS, now
            self._nonce = new_epoch() + new_epoch()
            self._database.run(ANNOUNCE, [[TEST + self._nonce]])

    def heard(self, nonce: str) -> None:
        """Note what a test has said, of this process or another one."""
        if nonce == self._nonce:
            self._nonce = ""
            self._is_heard = True

    def is_time_to_look(self, now: float) -> bool:
        """Return whether it is time to look for what was not heard."""
        return now >= self._look_at

    def has_looked(self, found: bool) -> None:
        """Note that it was looked, and whether something was found that had not been heard."""
        if self._is_heard:
            wait = LOOK_SECONDS
        else:
            longer = min(self._poll_seconds * POLL_GROWTH, LONGEST_POLL_SECONDS)
            wait = self._poll_seconds = FIRST_POLL_SECONDS if found else longer
        self._look_at = time.monotonic() + wait * CHANCE.uniform(1 - SPREAD, 1 + SPREAD)

    def _give_up(self) -> None:
        self._nonce = ""
        self._is_heard = False
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s does not pass on what is announced, as pgbouncer in transaction mode: this process polls, "
                "which takes longer, and more of PostgreSQL. Let SSE_BROKER_LISTEN_URL lead to PostgreSQL itself, for "
                "the one connection that listens (this is logged once)",
                self._url,
            )
