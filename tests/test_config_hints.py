"""What an app is warned of because its config is probably not what was meant."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE
from flask_sse_emitters.settings import Settings, read_config


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
    ("key", "says"),
    [
        ("SSE_TIMOUT", "SSE_TIMOUT is none of flask_sse_emitters and changes nothing: did you mean SSE_TIMEOUT?"),
        ("SSE_HEARTBEAT_SECONDS", "did you mean SSE_HEARTBEAT?"),
        ("SSE_MAX_CLIENTS_PER_IP", "did you mean SSE_MAX_CLIENTS"),
        ("SSE_QUUX", "its keys are SSE_TIMEOUT, SSE_HEARTBEAT, "),
    ],
)
def test_config_unknown_key_is_warned_of_once(key: str, says: str, caplog: pytest.LogCaptureFixture) -> None:
    [warning] = warnings_of(**{key: 60})
    assert says in warning
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [warning]


def test_config_own_and_foreign_keys_not_warned_of() -> None:
    config: dict[str, Any] = {}
    assert read_config(config).keys() == {each.name for each in fields(Settings)} - {"dumps", "app_context"}
    assert warnings_of(**config, SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="x", sse_lower=1) == []


@pytest.mark.parametrize("key", ["SSE_REDIS_URL", "REDIS_URL"])
def test_config_redis_url_of_others_is_hinted_at(key: str) -> None:
    [warning] = warnings_of(**{key: "redis://:secret@localhost"})
    assert f'app.config["SSE_BROKER_URL"] = app.config["{key}"]' in warning
    assert "secret" not in warning
    assert warnings_of(**{key: "redis://localhost", "SSE_BROKER_URL": "memory://"}) == [], "one process is meant"
    assert warnings_of(**{key: None}) == []


def test_broker_url_in_environment_is_hinted_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_BROKER_URL", "redis://:secret@localhost")
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    [warning] = warnings_of()
    assert 'app.config["SSE_BROKER_URL"] = os.environ["SSE_BROKER_URL"]' in warning
    assert "secret" not in warning
    assert warnings_of(SSE_BROKER_URL="memory://") == []


def test_redis_url_in_environment_is_not_hinted_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    assert warnings_of() == [], "it may be for a cache alone"
