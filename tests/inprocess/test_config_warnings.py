"""Warnings about a config that is probably a mistake."""

from __future__ import annotations

import logging
import resource
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE, SseEmitter
from tests.support.board import Board


@pytest.fixture(autouse=True)
def no_broker_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSE_BROKER_URL", raising=False)


def warnings_of(**config: Any) -> list[str]:
    app = Flask(__name__)
    app.config.update(SSE_MAX_CLIENTS=1)  # few enough for any limit of files
    app.config.update(config)
    warnings: list[str] = SSE(app).stats()["warnings"]
    return warnings


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("SSE_TIMOUT", "SSE_TIMOUT is not one of flask_sse_emitters, and changes nothing: did you mean SSE_TIMEOUT?"),
        ("SSE_HEARTBEAT_SECONDS", "did you mean SSE_HEARTBEAT?"),
        ("SSE_MAX_CLIENTS_PER_IP", "did you mean SSE_MAX_CLIENTS"),
        ("SSE_QUUX", "its keys are SSE_TIMEOUT, SSE_HEARTBEAT, "),
    ],
)
def test_config_unknown_key_is_warned_of_once(key: str, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    [warning] = warnings_of(**{key: 60})
    assert expected in warning
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [warning]


def test_config_own_and_foreign_keys_are_not_warned_of() -> None:
    app = Flask(__name__)
    SSE(app)  # fills in all of its keys
    own = {key: value for key, value in app.config.items() if key.startswith("SSE_")}
    assert warnings_of(**{**own, "SSE_MAX_CLIENTS": 1, "SECRET_KEY": "x", "REDIS_CACHE": "x", "sse_lower": 1}) == []


@pytest.mark.parametrize("key", ["SSE_REDIS_URL", "REDIS_URL"])
def test_config_redis_url_of_another_extension_brings_a_hint(key: str) -> None:
    [warning] = warnings_of(**{key: "redis://:secret@localhost"})
    assert f'app.config["SSE_BROKER_URL"] = app.config["{key}"]' in warning
    assert "secret" not in warning
    assert warnings_of(**{key: "redis://localhost", "SSE_BROKER_URL": "memory://"}) == [], "memory:// is chosen"
    assert warnings_of(**{key: None}) == []


def test_config_broker_url_in_the_environment_brings_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_BROKER_URL", "redis://:secret@localhost")
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    [warning] = warnings_of()
    assert 'app.config["SSE_BROKER_URL"] = os.environ["SSE_BROKER_URL"]' in warning
    assert "secret" not in warning
    assert warnings_of(SSE_BROKER_URL="memory://") == []


def test_config_redis_url_in_the_environment_brings_no_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    assert warnings_of() == [], "it may be for a cache alone"


HOUR = 3600

IN_SECONDS = [0, 0.5, 60, 1800, 9999, *range(HOUR, 25 * HOUR, HOUR), timedelta(days=7), timedelta(seconds=60_000)]


@pytest.mark.parametrize("lifetime", [30_000, 60_000, 86_401, 180_000, 1_800_000.0])
def test_timeout_in_milliseconds_is_warned_of_once(lifetime: float) -> None:
    [warning] = warnings_of(SSE_TIMEOUT=lifetime)
    assert warning.startswith(f"SSE_TIMEOUT={lifetime} is {lifetime / HOUR:,.1f} hours")
    assert f"SSE_TIMEOUT={lifetime / 1000:g} if milliseconds were meant" in warning

    app = Flask(__name__)
    app.config.update(SSE_MAX_CLIENTS=1)
    sse = SSE(app)
    with app.app_context():
        for more in range(3):
            SseEmitter(timeout=lifetime + 86_400 * more).complete()
        sse.channel("a").subscribe(timeout=lifetime).complete()
    [warning] = sse.stats()["warnings"]
    assert f"timeout={lifetime / 1000:g} if milliseconds were meant" in warning


def test_timeout_in_seconds_is_not_warned_of() -> None:
    for lifetime in IN_SECONDS:
        assert warnings_of(SSE_TIMEOUT=lifetime) == [], lifetime
    app = Flask(__name__)
    app.config.update(SSE_MAX_CLIENTS=1)
    sse = SSE(app)
    with app.app_context():
        for lifetime in IN_SECONDS:
            SseEmitter(timeout=lifetime).complete()
    assert sse.stats()["warnings"] == []


def test_timeout_in_milliseconds_without_an_app_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    emitter = SseEmitter(timeout=60_000)
    assert emitter.is_open
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    emitter.complete()


def test_config_max_event_bytes_above_max_pending_bytes_is_warned_of() -> None:
    [warning] = warnings_of(SSE_MAX_PENDING_BYTES=65_536)
    assert "SSE_MAX_PENDING_BYTES=65536 is less than SSE_MAX_EVENT_BYTES=1048576" in warning
    assert "Set SSE_MAX_EVENT_BYTES=65536" in warning
    assert warnings_of(SSE_MAX_PENDING_BYTES=65_536, SSE_MAX_EVENT_BYTES=65_536) == []


@pytest.mark.parametrize(("limit", "warns"), [(1024, True), (964, False), (resource.RLIM_INFINITY, False)])
def test_config_max_clients_beyond_the_file_limit_is_warned_of(
    limit: int, warns: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first stream, not when the app is made: a shell or a Celery worker has no clients."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    board = Board(SSE_MAX_CLIENTS=10_000 if warns else 900)
    assert board.sse.stats()["warnings"] == []
    with board.open("a"):
        warnings = board.sse.stats()["warnings"]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == warnings
    assert len(warnings) == warns
    for part in ("SSE_MAX_CLIENTS=10000", "1024 files", "it takes 960 clients", "10064 (ulimit -n", "LimitNOFILE="):
        assert not warns or part in warnings[0]


@pytest.mark.parametrize("multiprocess", [True, False])
def test_config_memory_broker_of_many_processes_is_warned_of(multiprocess: bool) -> None:
    """At the first stream."""
    board = Board()
    for _ in range(2):
        with board.open("a", environ_overrides={"wsgi.multiprocess": multiprocess}):
            pass
    warnings = board.sse.stats()["warnings"]
    assert ["SSE_BROKER_URL='memory://' reaches the clients of one process" in each for each in warnings] == (
        [True] if multiprocess else []
    )
