"""The feeder of a process's monitors: one timer for all of them, none without."""

from __future__ import annotations

import json
from threading import Barrier
from threading import Event as Flag
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_emitters import CloseReason
from flask_sse_emitters.runtime.scheduler import RULES, SCHEDULER
from tests.support.waiting import PATIENCE
from tests.unit.doubles.clock import ManualScheduler
from tests.unit.tools.monitor.feeding import fail, feeder_at, process, watching


def test_monitor_streams_end_at_shutdown_of_app(scheduler: ManualScheduler) -> None:
    feeder, sse, _ = feeder_at(scheduler)
    with watching(feeder):
        scheduler.run_jobs()
        sse.shutdown()
        scheduler.pass_time(1)
        scheduler.run_jobs()
        scheduler.pass_time(0)
        scheduler.run_jobs()
        assert not len(feeder.monitors)
    assert feeder.streams.closed == {CloseReason.SHUTDOWN.value: 1}


def test_monitor_timer_serves_all_and_stops_after_the_last(scheduler: ManualScheduler) -> None:
    feeder, _, _ = feeder_at(scheduler)
    assert (scheduler.live_timers(), scheduler.jobs) == ([], [])
    with watching(feeder), watching(feeder), watching(feeder):
        for _ in range(3):
            assert len(scheduler.jobs) == 1
            scheduler.run_jobs()
            assert len(scheduler.live_timers()) == 1
            scheduler.pass_time(1)
        assert feeder.is_ticking
        scheduler.run_jobs()
    scheduler.pass_time(1)
    assert not feeder.is_ticking
    assert (scheduler.live_timers(), scheduler.jobs) == ([], [])
    with watching(feeder):
        assert len(scheduler.jobs) == 1, "the next monitor starts it again"


def test_monitor_failed_tick_is_followed_by_the_next(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder, _, _ = feeder_at(scheduler)
    with watching(feeder):
        with monkeypatch.context() as patched:
            patched.setattr(feeder._state, "stats", fail)
            with pytest.raises(ZeroDivisionError):
                scheduler.run_jobs()
        scheduler.pass_time(1)
        scheduler.run_jobs()
        assert len(feeder._points) == 1


@pytest.mark.parametrize(
    "wrong", [None, "many", -1, float("nan"), pytest.param(10**400, id="huge"), [1], {"a": None, "b": "c"}, [{}]]
)
def test_monitor_malformed_figures_of_remote_process_are_ignored(
    wrong: Any, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder, sse, broker = feeder_at(scheduler)
    there = {**dict.fromkeys([*sse.stats(), *process("", 0)], wrong), "id": "there", "channels": {"orders": 2}}
    found = [there, {"id": 7}, wrong, {"pid": 5}, process("beyond", 3, closed={"timeout": 1, "error": wrong})]
    monkeypatch.setattr(broker, "processes", lambda: found)
    report = feeder._report()
    assert [each["id"] for each in report["processes"]] == ["here", "there", "beyond"]
    assert report["sees_all"]
    assert report["point"]["clients"] == 3
    assert (report["ends"]["TIMEOUT"], report["ends"]["ERROR"]) == (1, 0)
    assert [(each["name"], each["clients"]) for each in report["channels"]] == [("orders", 2)]
    json.dumps(report, allow_nan=False)


def test_monitor_clock_set_back_loses_no_point(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    feeder, sse, _ = feeder_at(scheduler)
    drift = 0.0
    clock = SimpleNamespace(time=lambda: 1e9 + scheduler.now + drift)
    monkeypatch.setattr("flask_sse_emitters.tools.monitor.feeder.time", clock)
    with watching(feeder):
        for second in range(6):
            drift = -3600.0 if second > 2 else 0.0
            scheduler.run_jobs()
            for _ in range(second):
                sse.publish("orders", "x")
            scheduler.pass_time(1)
    assert [point["published"] for point in feeder._points] == [0, 0, 1, 2, 3, 4]


def test_monitor_whose_subscribe_fails_leaves_no_sample_or_stream(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder, _, broker = feeder_at(scheduler)
    with monkeypatch.context() as patched:
        patched.setattr(broker, "subscribe", lambda *_: fail())
        with pytest.raises(ZeroDivisionError), watching(feeder, "orders"):
            pass
    assert (feeder.samples, feeder.is_ticking) == ({}, False)
    assert (len(feeder.streams), len(feeder.monitors)) == (0, 0)
    with watching(feeder, "orders"):
        assert feeder.samples["orders"].users == 1


def test_monitor_tick_that_waits_for_broker_delays_no_access_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    feeder, _, broker = feeder_at()
    waits, goes_on = Flag(), Flag()

    def processes() -> list[dict[str, Any]]:
        waits.set()
        goes_on.wait()
        return []

    monkeypatch.setattr(broker, "processes", processes)
    both = Barrier(3)
    with watching(feeder):
        try:
            assert waits.wait(PATIENCE)
            for _ in range(2):
                SCHEDULER.run(lambda: both.wait(PATIENCE), RULES)
            both.wait(PATIENCE)  # breaks if one of the two rules waits
        finally:
            goes_on.set()
