"""The figures of other processes, as the monitor asks the broker for them."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.tools.monitor.remote import FETCH_SECONDS, RemoteProcesses
from tests.unit.doubles.clock import ManualScheduler
from tests.unit.tools.monitor.feeding import fail, feeder_at, process, watching


def test_monitor_remote_processes_are_fetched_at_interval_and_age_between(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder, _, broker = feeder_at(scheduler)
    asked: list[float] = []

    def processes() -> list[dict[str, Any]]:
        asked.append(scheduler.now)
        return [process("there", 2, age=0.5)]

    monkeypatch.setattr(broker, "processes", processes)
    ages = []
    with watching(feeder):
        for _ in range(2 * int(FETCH_SECONDS)):
            scheduler.run_jobs()
            ages.append([each["age"] for each in feeder._report()["processes"]])
            scheduler.pass_time(1)
    assert asked == [1000.0, 1000.0 + FETCH_SECONDS]
    assert ages == [[0.0, 0.5], [0.0, 1.5], [0.0, 2.5], [0.0, 3.5]] * 2


def test_monitor_remote_processes_are_fetched_as_soon_as_broker_is_up(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = MemoryBroker()
    others = RemoteProcesses(broker, scheduler.clock)
    assert others.fetch(is_broker_up=True) == []
    assert others.fetch(is_broker_up=False) is None
    monkeypatch.setattr(broker, "processes", lambda: [process("there", 2)])
    assert [each["id"] for each in others.fetch(is_broker_up=True) or ()] == ["there"]


def test_monitor_after_failed_fetch_shows_this_process_alone(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feeder, _, broker = feeder_at(scheduler)
    monkeypatch.setattr(broker, "processes", fail)
    with watching(feeder):
        for _ in range(10):
            scheduler.run_jobs()
            scheduler.pass_time(1)
    assert len(feeder._points) == 10
    report = feeder._report()
    assert not report["sees_all"]
    assert [each["id"] for each in report["processes"]] == ["here"]
    assert [record.levelname for record in caplog.records if "sees this process alone" in record.message] == ["ERROR"]


def test_monitor_processes_are_not_fetched_from_degraded_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    feeder, _, broker = feeder_at()
    monkeypatch.setattr(broker, "status", lambda: {"state": "degraded", "error": "away"})
    monkeypatch.setattr(broker, "processes", fail)
    assert not feeder._report()["sees_all"]
