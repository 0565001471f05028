"""The outbox of PostgreSQL: what is drained in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from flask_sse_emitters.brokers.postgresql import outbox as module
from flask_sse_emitters.brokers.postgresql.outbox import Outbox
from flask_sse_emitters.errors import BrokerUnavailable


class Jobs(list[Callable[[], object]]):
    """Stands in for the scheduler: has what is to be run in the background."""

    def run(self, job: Callable[[], object]) -> None:
        self.append(job)


class Requests:
    """Notes what is drained, and does what happens meanwhile."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        self.drained: list[list[str]] = []
        self._meanwhile = list(meanwhile)

    def drain(self, channels: Iterable[str]) -> None:
        self.drained.append(list(channels))
        if self._meanwhile:
            self._meanwhile.pop(0)()


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    jobs = Jobs()
    monkeypatch.setattr(module, "SCHEDULER", jobs)
    return jobs


def test_outbox_drains_at_once_what_was_committed_during_the_last_time(jobs: Jobs) -> None:
    def commit_more() -> None:
        for channels in (["b"], ["c", "a"], ["b"]):
            outbox.drain_soon(channels)

    requests: Any = Requests(commit_more)
    outbox = Outbox(requests, "sse")
    outbox.drain_soon(["a"])
    outbox.drain_soon(["a", "z"])
    assert requests.drained == [], "a commit does not wait"
    [job] = jobs
    job()
    assert requests.drained == [["a", "z"], ["b", "c", "a"]]
    assert len(jobs) == 1
    outbox.drain_soon(["d"])
    jobs[1]()
    assert requests.drained[2:] == [["d"]]


def test_outbox_that_could_not_be_drained_is_tried_with_the_next(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: Exception) -> None:
        raise error

    requests: Any = Requests(lambda: fail(BrokerUnavailable("it is away")), lambda: fail(ValueError("a fault")))
    outbox = Outbox(requests, "sse")
    with caplog.at_level(logging.WARNING):
        outbox.drain_soon(["a"])
        jobs[0]()
    assert "it is away; what was committed is published by a process that listens" in caplog.text
    outbox.drain_soon(["b"])
    with pytest.raises(ValueError, match="a fault"):  # which the scheduler logs
        jobs[1]()
    outbox.drain_soon(["c"])
    jobs[2]()
    assert requests.drained == [["a"], ["b"], ["c"]]
