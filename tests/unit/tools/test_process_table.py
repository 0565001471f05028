"""The table of ``flask sse status``."""

from __future__ import annotations

from typing import Any

from flask_sse_emitters.tools.process_table import describe, summarize

# The table.

NOW = 1_800_000_000.0


PROCESS: dict[str, Any] = {
    "host": "web-1",
    "pid": 7,
    "since": NOW - 3 * 3600 - 59,
    "clients": 1500,
    "deliveries": 1_234_567,
    "pending": 12,
    "dropped": 0,
    "channels": {"orders": 500, "news": 1000},
    "warnings": [],
    "broker": {"scheme": "redis", "state": "ok"},
    "draining": False,
    "age": 0.44,
}


def test_table_lists_processes_and_channels_by_clients() -> None:
    second = {**PROCESS, "host": "web-10", "pid": 12345, "since": NOW - 61, "clients": 1, "channels": {"orders": 1}}
    assert describe([second, PROCESS], NOW) == "\n".join(
        [
            "2 processes, 1,501 clients, 2 channels",
            "",
            "host      pid     up  clients  deliveries  pending  dropped       seen",
            "web-1       7    3 h    1,500   1,234,567       12        0  0.4 s ago",
            "web-10  12345  1 min        1   1,234,567       12        0  0.4 s ago",
            "",
            "channel  clients",
            "news       1,000",
            "orders       501",
        ]
    )


def test_table_shows_twenty_of_many_channels() -> None:
    shown = describe([{**PROCESS, "channels": {f"c{n:02}": n for n in range(1, 31)}}], NOW)
    assert "c30" in shown
    assert "c11" in shown
    assert "c10" not in shown
    assert shown.endswith("\nand 10 more")


def test_table_shows_drain_and_warnings() -> None:
    degraded = {
        **PROCESS,
        "draining": True,
        "warnings": ["too few files"],
        "broker": {"scheme": "redis", "state": "degraded", "error": "timed out"},
    }
    shown = describe([degraded, {**degraded, "pid": 8}], NOW)
    assert shown.count("  draining\n") == 2
    assert "warning, of 2 processes: too few files" in shown
    assert "warning, of 2 processes: the broker is degraded: timed out" in shown
    assert summarize([degraded])["warnings"] == ["too few files", "the broker is degraded: timed out"]


def test_table_shows_process_with_missing_figures() -> None:
    assert "\n?       ?  0 s        0 " in describe([{"channels": {}}], NOW)


def test_table_escapes_control_characters() -> None:
    hostile = "\x1b[2J\n\x9b1m\u202e"
    figures = {**PROCESS, "host": hostile, "channels": {hostile: 1}, "warnings": [hostile]}
    shown = describe([{**figures, "broker": {"state": "degraded", "error": hostile}}], NOW)
    assert shown.count(r"\x1b[2J\n\x9b1m\u202e") == 4
    assert shown.replace("\n", "").isprintable()


def test_table_escapes_lone_surrogates() -> None:
    """JSON may hold lone surrogates, which UTF-8 cannot encode."""
    shown = describe([{**PROCESS, "host": "\ud800", "channels": {"\udfff": 1}, "warnings": ["\ud800"]}], NOW)
    assert shown.isascii()
    assert shown.count(r"\ud800") == 2
