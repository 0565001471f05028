"""What becomes of events after the commit, whatever their broker does."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker, Frame, Publication, Published, make_broker
from flask_sse_emitters.channels.publishing import PublishCounts
from flask_sse_emitters.commits.destination import Entry, publish_committed
from flask_sse_emitters.config.settings import Settings
from flask_sse_emitters.errors import BrokerUnavailable


class Sink:
    """Notes the steps in which it is given events; ``most`` at a time."""

    has_background = False
    broker: Broker = make_broker("memory://")
    settings = Settings()

    def __init__(self, most: int = 100, *results: Any) -> None:
        self.steps: list[list[str]] = []
        self.publish_counts = PublishCounts()
        self._most = most
        self._results = results

    def check_open(self) -> None:
        pass

    def bounds(self, _name: str) -> None:
        pass

    def send(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        if len(publications) > self._most:
            raise NotImplementedError("one at a time")
        self.steps.append([each.channel for each in publications])
        return list(self._results) or [Published("e-1", True) for _ in publications]

    def entries(self, *channels: str, outbox: Any = None) -> list[Entry]:
        return [Entry(self, Publication(name, Frame(b"data: x\n\n", "message"), None), outbox) for name in channels]


class Drained:
    """An outbox that notes what is to be drained, and may fail."""

    schema = "sse"

    def __init__(self, error: Exception | None = None) -> None:
        self.drained: list[list[str]] = []
        self._error = error

    def is_locked(self, number: int) -> bool:
        return bool(number)

    def row(self, publication: Publication) -> dict[str, Any]:
        return {"channel": publication.channel}

    def drain(self, channels: Iterable[str]) -> None:
        self.drained.append(list(channels))
        if self._error is not None:
            raise self._error

    def drain_soon(self, channels: Iterable[str]) -> None:
        raise AssertionError(f"{channels}: nothing is to be done in the background")


def test_committed_events_go_to_each_destination_in_one_step() -> None:
    one, two = Sink(), Sink()
    publish_committed([*one.entries("a"), *two.entries("b"), *one.entries("c", "a")])
    assert (one.steps, two.steps) == ([["a", "c", "a"]], [["b"]])


def test_committed_events_go_one_by_one_to_a_broker_that_takes_no_more() -> None:
    sink = Sink(1)
    publish_committed(sink.entries("a", "b", "a"))
    assert sink.steps == [["a"], ["b"], ["a"]]


def test_committed_events_of_a_broker_that_takes_none_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    publish_committed(Sink(0).entries("a", "b"))
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == ["'a'", "'b'"]


def test_committed_events_of_an_outbox_are_drained_and_not_published_again() -> None:
    sink, outbox = Sink(), Drained()
    publish_committed([*sink.entries("a", "b", "a", outbox=outbox), *sink.entries("c")])
    assert (outbox.drained, sink.steps) == ([["a", "b"]], [["c"]])


def test_error_of_one_destination_after_the_commit_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    away = BrokerUnavailable("it is away")
    failing, good, outbox = Sink(100, Published("e-1", True), away), Sink(), Drained(away)
    broken = Sink(100, Published("e-1", True))
    broken.send = lambda _: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with caplog.at_level(logging.WARNING):
        publish_committed(
            [
                *failing.entries("a", "b"),
                *broken.entries("c"),
                *failing.entries("d", outbox=outbox),
                *good.entries("e"),
            ]
        )
    assert good.steps == [["e"]]
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "ERROR"]
    assert "1 of its 2 events failed: it is away ('a', 'b')" in caplog.text
    assert "its events were not published: 'c'" in caplog.text
    assert "division by zero" in caplog.text
