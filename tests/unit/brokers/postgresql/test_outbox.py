"""The outbox of PostgreSQL: what is drained in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from flask_sse_emitters.brokers.postgresql.outbox import Outbox
from flask_sse_emitters.errors import BrokerUnavailable
from tests.support.waiting import PATIENCE, until


class HeldRequests:
    """Notes what is drained; the first time, it is held until it may go on, and may fail then."""

    def __init__(self, error: Exception | None = None) -> None:
        self.drained: list[list[str]] = []
        self.may_go_on = threading.Event()
        self._error = error

    def drain(self, channels: Iterable[str]) -> None:
        self.drained.append(list(channels))
        assert self.may_go_on.wait(PATIENCE)
        error, self._error = self._error, None
        if error is not None:
            raise error


def test_outbox_drains_at_once_what_was_committed_during_the_last_time() -> None:
    requests: Any = HeldRequests()
    outbox = Outbox(requests, "sse")
    outbox.drain_soon(["a"])
    until(lambda: requests.drained, "the first")
    for channels in (["b"], ["c", "a"], ["b"]):
        outbox.drain_soon(channels)
    assert requests.drained == [["a"]]
    requests.may_go_on.set()
    until(lambda: len(requests.drained) == 2, "the others")
    assert requests.drained == [["a"], ["b", "c", "a"]]
    outbox.drain_soon(["d"])
    until(lambda: requests.drained[2:] == [["d"]], "a later one")


@pytest.mark.parametrize("error", [BrokerUnavailable("it is away"), ValueError("a fault")])
def test_outbox_that_could_not_be_drained_is_tried_with_the_next(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    requests: Any = HeldRequests(error)
    outbox = Outbox(requests, "sse")
    requests.may_go_on.set()
    with caplog.at_level(logging.WARNING):
        outbox.drain_soon(["a"])
        until(lambda: str(error) in caplog.text, "the log")

    def is_next_drained() -> bool:
        outbox.drain_soon(["b"])
        return ["b"] in requests.drained

    until(is_next_drained, "the next")
