"""The feeder of a process's monitors, the figures of other processes, and the report made of them."""

from __future__ import annotations

import json
from threading import Barrier
from threading import Event as Flag
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable, CloseReason
from flask_sse_emitters.runtime.scheduler import RULES, SCHEDULER
from flask_sse_emitters.tools.monitor.remote import FETCH_SECONDS
from flask_sse_emitters.tools.monitor.report import CHANNELS_SHOWN, Rates, make_report
from tests.support.monitored import MONITOR, TEST_EVENT, open_app
from tests.support.waiting import PATIENCE
from tests.unit.doubles.clock import ManualScheduler
from tests.unit.tools.monitor.feeding import fail, feeder_at, process, watching


def test_monitor_streams_end_at_shutdown_of_app(scheduler: ManualScheduler) -> None:
    feeder, sse, _ = feeder_at(scheduler)
    with watching(feeder):
        scheduler.run_jobs()
        sse.shutdown()
        for seconds in (1, 0):
            scheduler.pass_time(seconds)
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


def test_monitor_remote_processes_are_fetched_only_while_broker_is_up(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder, _, broker = feeder_at(scheduler)
    with monkeypatch.context() as patched:
        patched.setattr(broker, "status", lambda: {"state": "degraded", "error": "away"})
        patched.setattr(broker, "processes", fail)
        assert not feeder._report()["sees_all"]
    monkeypatch.setattr(broker, "processes", lambda: [process("there", 2)])
    assert [each["id"] for each in feeder._report()["processes"]] == ["here", "there"], "at once"


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


def test_monitor_rate_compares_last_two_reports() -> None:
    rates = Rates()
    assert rates.add("here", 10.0, {"a": 5}) == {}
    assert rates.add("here", 14.0, {"a": 45, "b": 1000}) == {"a": 10}, "b may have been counted for a long time"
    assert rates.add("here", 14.05, {"a": 45, "b": 1000}) == {"a": 10}, "no new report"
    assert rates.add("here", 15.0, {"a": 3, "b": 1003}) == {"a": 3, "b": 3}, "the counter a was reset"
    rates.keep_only([])
    assert rates.add("here", 16.0, {"a": 9}) == {}


def test_monitor_smoothed_rate_covers_its_window() -> None:
    rates = Rates(10)
    found = [rates.add("here", float(second), {"deliveries": second // 5 * 20}) for second in range(31)]
    assert {each["deliveries"] for each in found[10:]} == {4.0}


def test_monitor_report_adds_figures_of_processes() -> None:
    here = process("a", 3, channels={"orders": 2, "news": 1}, events={"orders": 9}, closed={"timeout": 2})
    there = process("b", 4, channels={"orders": 1, "jobs": 5}, closed={"timeout": 1, "error": 1}, warnings=["beware"])
    here["moved"], there["moved"] = {"in": 5, "out": 2, "refused": {}}, {"in": 0, "out": 3, "refused": {"slow": 9}}
    unread = {"id": "c", "age": 2.0, "channels": {"jobs": 1}}
    report = make_report([here, there, unread], Rates(), Rates(), 1000.0, 10.0)
    assert report["point"]["clients"] == 7
    assert report["ends"]["TIMEOUT"] == 3
    assert report["ends"]["ERROR"] == 1
    assert report["moved"] == 5, "each of them once: as it left"
    assert report["warnings"] == ["beware"]
    assert [(each["name"], each["clients"], each["events"]) for each in report["channels"]] == [
        ("jobs", 6, None),
        ("orders", 3, 9),
        ("news", 1, None),
    ]
    assert [each["id"] for each in report["processes"]] == ["a", "b", "c"]


def test_monitor_report_of_many_channels_shows_those_with_most_clients() -> None:
    few = {f"few-{number}": 1 for number in range(5 * CHANNELS_SHOWN)}
    many = {f"many-{number}": 2 + number for number in range(CHANNELS_SHOWN - 1)}
    here = process("a", 3, channels={**few, **many}, events=dict.fromkeys([*few, *many], 7))
    there = process("b", 3, channels={"few-400": 1})
    report = make_report([here, there], Rates(), Rates(), 1000.0, 10.0)
    names = [each["name"] for each in report["channels"]]
    assert names[:-2] == list(reversed(many))[:-1]
    assert names[-2:] == ["few-400", "many-0"], "equal counts are sorted by name"
    assert report["channels_in_all"] == 6 * CHANNELS_SHOWN - 1


def test_monitor_broker_error_on_publish_is_not_reported_as_bad_json(monkeypatch: pytest.MonkeyPatch) -> None:
    app, sse = open_app()
    errors: list[Exception] = [BrokerUnavailable("no answer"), ValueError("the broker is odd")]

    def fail(*_args: object) -> None:
        raise errors.pop()

    monkeypatch.setattr(sse.find_state().channels.broker, "publish", fail)
    form = {**TEST_EVENT, "text": "1", "is_json": True}
    odd = app.test_client().post(f"{MONITOR}/publish", json=form)
    assert (odd.status_code, "JSON" in odd.text) == (500, False)
    away = app.test_client().post(f"{MONITOR}/publish", json=form)
    assert (away.status_code, away.json) == (503, {"error": "It may have been published or not: no answer"})
