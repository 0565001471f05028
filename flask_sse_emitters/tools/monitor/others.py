"""What other processes say of themselves, asked for now and then."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from ...brokers import Broker
from ...errors import BrokerUnavailable
from ..process_table import check_processes

log = logging.getLogger("flask_sse_emitters.monitor.others")

#: Seconds. They say it anew as seldom, and it may be much: the clients of all channels of all of them.
ASKED_EVERY = 4.0


class Others:
    """The other processes that share a broker. One thread at a time may call."""

    def __init__(self, broker: Broker, clock: Callable[[], float]) -> None:
        self._broker = broker
        self._clock = clock
        self._said: list[dict[str, Any]] | None = None
        self._said_at = 0.0
        self._due = -math.inf
        self._has_failed = False

    def look(self, is_up: bool) -> list[dict[str, Any]] | None:
        """What they say, as far as it can be read; None where that cannot be told now. May wait for the broker.

        :param is_up: whether that can be reached. Else it is asked as soon as it is back.
        """
        if not is_up:
            self._due = -math.inf
            return None
        now = self._clock()
        if now >= self._due:
            self._said, self._said_at, self._due = self._ask(), now, now + ASKED_EVERY
        if self._said is None:
            return None
        return [{**each, "age": each["age"] + now - self._said_at} for each in self._said]

    def _ask(self) -> list[dict[str, Any]] | None:
        try:
            found = check_processes(self._broker.processes())
            return [each for each in found if each["id"] != self._broker.process]
        except BrokerUnavailable as error:
            log.debug("the monitor sees this process alone: %s", error)
        except Exception:  # of a broker that somebody else has made
            if not self._has_failed:
                self._has_failed = True
                log.exception("the monitor sees this process alone, because of an error; this is said once")
        return None
