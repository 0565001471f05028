"""``flask sse`` with brokers that are not Redis and answers that no working broker gives; its table of processes."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_sse_emitters import SSE, BrokerUnavailable
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.tools.process_table import describe, summarize
from tests.support.cli import cli_runner


class Elsewhere(MemoryBroker):
    """A broker of a third party, which counts no clients. It may never answer a subscription."""

    is_shared = True
    is_silent = False

    def subscribe(self, *_arguments: Any) -> Any:
        assert self.is_silent
        return None


def app_elsewhere(**config: object) -> tuple[Flask, Elsewhere]:
    app = Flask(__name__)
    app.config.update(config)
    SSE(app)
    broker = app.extensions["sse_emitters"].channels.broker = Elsewhere()
    return app, broker


def invoked(app: Flask, *arguments: str) -> Result:
    return cli_runner(app).invoke(args=["sse", *arguments])


def fail(*_: object) -> None:
    raise BrokerUnavailable(f"Redis said {HOSTILE}")


#: Clears the screen by C0 and by C1, returns to the line's begin, and shows the rest from right to left.
HOSTILE = "\x1b[2J \x9b2J \b\r \u202e \u2066 \u2028 \x7f\ttab, Täg"

ESCAPED = r"Redis said \x1b[2J \x9b2J \x08\r \u202e \u2066 \u2028 \x7f\ttab, Täg" + "\n"


def test_listen_with_a_broker_that_does_not_subscribe_is_an_error() -> None:
    app, broker = app_elsewhere(SSE_PUBLISH_SECONDS=0.1)
    broker.is_silent = True
    result = invoked(app, "listen", "orders")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: the broker does not let us listen: no answer in SSE_PUBLISH_SECONDS" in result.stderr
    assert app.extensions["sse_emitters"].stats()["channels"] == {}


def test_cli_escapes_control_characters_of_broker_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    app, broker = app_elsewhere()
    result = invoked(app, "publish", "orders", "x")
    assert (result.exit_code, result.stderr) == (0, ""), "no count where the broker counts no clients"
    for method in ("publish", "check_writable"):
        monkeypatch.setattr(broker, method, fail)
    assert invoked(app, "publish", "orders", "x").stderr == f"Error: {ESCAPED}"
    assert invoked(app, "status").stdout.endswith(f"warning: nothing can be published now: {ESCAPED}")


NOW = 1_800_000_000.0


PROCESS: dict[str, Any] = {
    "host": "web-1",
    "pid": 7,
    "since": NOW - 3 * 3600 - 59,
    "clients": 1500,
    "max_clients": 10_000,
    "refused": 3,
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
            "host      pid     up  clients      of  refused  deliveries  pending  dropped       seen",
            "web-1       7    3 h    1,500  10,000        3   1,234,567       12        0  0.4 s ago",
            "web-10  12345  1 min        1  10,000        3   1,234,567       12        0  0.4 s ago",
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
    assert "\n?       ?  0 s        0   ?        0 " in describe([{"channels": {}}], NOW), "a process without figures"


def test_table_shows_drain_and_warnings() -> None:
    degraded = {
        **PROCESS,
        "draining": True,
        "warnings": ["too few files"],
        "broker": {"scheme": "redis", "state": "degraded", "error": "timed out", "troubles": ["a cannot be read"]},
    }
    shown = describe([degraded, {**degraded, "pid": 8}], NOW)
    assert shown.count("  draining\n") == 2
    assert "warning, of 2 processes: too few files" in shown
    assert "warning, of 2 processes: the broker is degraded: timed out" in shown
    warnings = ["too few files", "the broker is degraded: timed out", "a cannot be read"]
    assert summarize([degraded])["warnings"] == warnings


@pytest.mark.parametrize(
    ("hostile", "escaped"),
    [("\x1b[2J\n\x9b1m\u202e", r"\x1b[2J\n\x9b1m\u202e"), ("\ud800", r"\ud800")],
    ids=["control characters", "a lone surrogate, which UTF-8 cannot encode"],
)
def test_table_escapes_control_characters(hostile: str, escaped: str) -> None:
    figures = {**PROCESS, "host": hostile, "channels": {hostile: 1}, "warnings": [hostile]}
    shown = describe([{**figures, "broker": {"state": "degraded", "error": hostile}}], NOW)
    assert shown.count(escaped) == 4
    assert shown.isascii()
    assert shown.replace("\n", "").isprintable()
