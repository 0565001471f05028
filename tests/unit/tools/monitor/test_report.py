"""The report that monitors get each second: rates, and sums of all processes."""

from __future__ import annotations

from flask_sse_emitters.tools.monitor.report import CHANNELS_SHOWN, Rates, make_report
from tests.unit.tools.monitor.feeding import process


def test_monitor_rate_compares_last_two_reports() -> None:
    rates = Rates()
    assert rates.add("here", 10.0, {"deliveries": 5}) == {}
    assert rates.add("here", 14.0, {"deliveries": 45}) == {"deliveries": 10}
    assert rates.add("here", 14.05, {"deliveries": 45}) == {"deliveries": 10}, "no new report"
    assert rates.add("here", 15.0, {"deliveries": 3}) == {"deliveries": 3}, "the counter was reset"
    rates.keep_only([])
    assert rates.add("here", 16.0, {"deliveries": 9}) == {}


def test_monitor_smoothed_rate_covers_its_window() -> None:
    rates = Rates(10)
    found = [rates.add("here", float(second), {"deliveries": second // 5 * 20}) for second in range(31)]
    assert {each["deliveries"] for each in found[10:]} == {4.0}


def test_monitor_rate_of_new_counter_starts_with_second_report() -> None:
    rates = Rates(10)
    assert rates.add("here", 10.0, {"a": 5}) == {}
    assert rates.add("here", 11.0, {"a": 6, "b": 1000}) == {"a": 1}, "b may have been counted for a long time"
    assert rates.add("here", 12.0, {"a": 7, "b": 1003}) == {"a": 1, "b": 3}


def test_monitor_report_adds_figures_of_processes() -> None:
    here = process("a", 3, channels={"orders": 2, "news": 1}, events={"orders": 9}, closed={"timeout": 2})
    there = process("b", 4, channels={"orders": 1, "jobs": 5}, closed={"timeout": 1, "error": 1}, warnings=["beware"])
    unread = {"id": "c", "age": 2.0, "channels": {"jobs": 1}}
    report = make_report([here, there, unread], Rates(), Rates(), 1000.0, 10.0)
    assert report["point"]["clients"] == 7
    assert report["ends"]["TIMEOUT"] == 3
    assert report["ends"]["ERROR"] == 1
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
