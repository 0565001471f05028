"""Fetch what other processes report of themselves, every few seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from ...brokers import Broker
from ...errors import BrokerUnavailable
from ..process_table import check_processes

log = logging.getLogger("flask_sse_emitters.monitor.others")

#: Seconds between two requests to the broker. Processes report no more often, and a report may be large: it counts the
#: clients of every channel.
FETCH_SECONDS = 4.0


class RemoteProcesses:
    """The other processes that share a broker. Only one thread at a time may call."""

    def __init__(self, broker: Broker, clock: Callable[[], float]) -> None:
        self._broker = broker
        self._clock = clock
        self._reports: list[dict[str, Any]] | None = None
        self._fetched_at = 0.0
        self._due = -math.inf
        self._is_error_logged = False

    def fetch(self, is_broker_up: bool) -> list[dict[str, Any]] | None:
        """Return their checked reports, from the last :data:`FETCH_SECONDS`; None where they are not known now.

        May wait for the broker.

        :param is_broker_up: where it is False, the broker is not asked now, but as soon as this is True again.
        """
        if not is_broker_up:
            self._due = -math.inf
            return None
        now = self._clock()
        if now >= self._due:
            self._reports, self._fetched_at, self._due = self._ask(), now, now + FETCH_SECONDS
        if self._reports is None:
            return None
        return [{**report, "age": report["age"] + now - self._fetched_at} for report in self._reports]

    def _ask(self) -> list[dict[str, Any]] | None:
        try:
            found = check_processes(self._broker.processes())
            return [report for report in found if report["id"] != self._broker.process]
        except BrokerUnavailable as error:
            log.debug("the monitor sees this process alone: %s", error)
        except Exception:  # the broker may be a third party's
            if not self._is_error_logged:
                self._is_error_logged = True
                log.exception("the monitor sees this process alone, because of an error; this is logged once")
        return None
