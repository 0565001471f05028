"""Setting the extension up: which apps ``init_app`` takes, its config, and the warnings about probable mistakes."""

from __future__ import annotations

import logging
import re
import resource
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE, CloseReason, NotInitialized, SseEmitter
from tests.support.board import Board, completed, levels
from tests.support.waiting import until


def test_init_app_twice_for_one_app_or_for_something_else_is_rejected(board: Board) -> None:
    for again in (board.sse, SSE()):
        with pytest.raises(RuntimeError, match="this app has an SSE already"):
            again.init_app(board.app)
    for app in ("app", type(None), object()):
        with pytest.raises(TypeError, match="take the Flask app, not"):
            SSE(app)  # type: ignore[arg-type]


def test_init_app_of_several_apps_keeps_them_apart() -> None:
    sse = SSE()
    for name, retry in (("one", 1), ("two", 2)):
        app = Flask(name)
        app.config["SSE_RETRY"] = retry
        sse.init_app(app)
        app.add_url_rule("/", view_func=lambda: completed(SseEmitter()))
        assert f"retry: {retry}\n" in app.test_client().get("/").text


def test_init_app_is_needed_for_streams_and_the_error_says_so() -> None:
    app = Flask(__name__)
    app.testing = True
    app.add_url_rule("/", view_func=SseEmitter)
    with pytest.raises(NotInitialized, match=r"call SSE\(app\) or sse.init_app\(app\)"):
        app.test_client().get("/")
    with pytest.raises(NotInitialized):
        SseEmitter().response()


def test_calls_without_an_app_or_with_several_say_what_to_do() -> None:
    sse = SSE()
    news = sse.channel("news", public=True)
    with pytest.raises(NotInitialized, match=r"call init_app\(app\) first"):
        news.publish("x")
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        sse.init_app(app)
    for use in (lambda: sse.publish("news", "x"), sse.stats, sse.shutdown, news.subscribe):
        with pytest.raises(NotInitialized, match=r"has 2 apps: say which, with app.app_context\(\)"):
            use()
    with apps[1].app_context():
        news.publish("x")
        assert sse.stats()["published"] == 1
    other = SSE(Flask("three"))
    with apps[0].app_context():
        assert sse.stats()["published"] == 0
        other.publish("a", "x")
    assert other.stats()["published"] == 1, "in the context of another app"


def test_extension_registered_as_a_blueprint_is_an_error_with_advice(board: Board) -> None:
    sse: Any = SSE()
    with pytest.raises(TypeError, match=re.escape("app.register_blueprint(sse.blueprint, url_prefix=...)")):
        board.app.register_blueprint(sse, url_prefix="/events")


@pytest.mark.parametrize(
    ("key", "value", "accepts"),
    [
        ("SSE_TIMEOUT", -1, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_TIMEOUT", None, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_HEARTBEAT", "15", "seconds as a number or a timedelta, 0 for never"),
        ("SSE_RETRY", 1.5, "an int of milliseconds, 0 or more, or None"),
        ("SSE_RETRY", -1, "an int of milliseconds, 0 or more, or None"),
        ("SSE_RETRY", True, "an int of milliseconds, 0 or more, or None"),
        ("SSE_MAX_PENDING", 0, "an int, 1 or more"),
        ("SSE_MAX_PENDING_BYTES", "1MB", "an int, 1 or more"),
        ("SSE_OVERFLOW", "block", '"close", "drop_oldest" or "coalesce"'),
        ("SSE_WRITE_SECONDS", -1, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_ATTACH_SECONDS", 0, "seconds as a number or a timedelta, more than 0"),
        ("SSE_HANDOFF", True, '"auto", "on" or "off"'),
        ("SSE_MAX_EVENT_BYTES", 0, "an int, 1 or more"),
    ],
)
def test_config_value_that_is_invalid_is_named(key: str, value: object, accepts: str) -> None:
    app = Flask(__name__)
    app.config[key] = value
    with pytest.raises(ValueError, match=f"{key} must be {accepts}, not") as caught:
        SSE(app)
    assert repr(value) in str(caught.value)
    assert "sse_emitters" not in app.extensions


def test_config_of_the_app_that_returns_an_emitter_holds_for_it() -> None:
    board = Board(SSE_MAX_PENDING=2, SSE_TIMEOUT=0.05)
    emitter, own = SseEmitter(), SseEmitter(timeout=0, max_pending=3)
    late = SseEmitter()
    with board.app.test_request_context():
        responses = [emitter.response(), own.response(), late.response()]
    assert [emitter.try_send(n) for n in range(3)] == [True, True, False]
    assert [own.try_send(n) for n in range(3)] == [True, True, True]
    until(lambda: late.close_reason is CloseReason.TIMEOUT, "the timeout of its app")
    assert own.is_open
    assert own.try_send(4) is False
    for response in responses:
        response.close()


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
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    assert warnings_of() == [], "it may be for a cache alone"
    monkeypatch.setenv("SSE_BROKER_URL", "redis://:secret@localhost")
    [warning] = warnings_of()
    assert 'app.config["SSE_BROKER_URL"] = os.environ["SSE_BROKER_URL"]' in warning
    assert "secret" not in warning
    assert warnings_of(SSE_BROKER_URL="memory://") == []


HOUR = 3600


def warnings_of_emitters(*lifetimes: Any) -> list[str]:
    board = Board(SSE_MAX_CLIENTS=1)
    with board.app.app_context():
        for lifetime in lifetimes:
            SseEmitter(timeout=lifetime).complete()
            board.sse.channel("a").subscribe(timeout=lifetime).complete()
    warnings: list[str] = board.sse.stats()["warnings"]
    return warnings


@pytest.mark.parametrize("lifetime", [30_000, 60_000, 86_401, 180_000, 1_800_000.0])
def test_timeout_in_milliseconds_is_warned_of_once(lifetime: float) -> None:
    [warning] = warnings_of(SSE_TIMEOUT=lifetime)
    assert warning.startswith(f"SSE_TIMEOUT={lifetime} is {lifetime / HOUR:,.1f} hours")
    assert f"SSE_TIMEOUT={lifetime / 1000:g} if milliseconds were meant" in warning
    [warning] = warnings_of_emitters(lifetime, lifetime + 86_400, lifetime + 172_800)
    assert f"timeout={lifetime / 1000:g} if milliseconds were meant" in warning


def test_timeout_in_seconds_is_not_warned_of() -> None:
    lifetimes = [0, 0.5, 60, 1800, 9999, *range(HOUR, 25 * HOUR, HOUR), timedelta(days=7), timedelta(seconds=60_000)]
    for lifetime in lifetimes:
        assert warnings_of(SSE_TIMEOUT=lifetime) == [], lifetime
    assert warnings_of_emitters(*lifetimes) == []


def test_timeout_in_milliseconds_without_an_app_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    _boards = Board(), Board()  # one alone would be the emitter's app
    SseEmitter(timeout=60_000).complete()
    assert levels(caplog) == []


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
