"""The monitor's form, where the broker fails."""

from __future__ import annotations

import pytest

from flask_sse_emitters import BrokerUnavailable
from tests.support.monitored import MONITOR, TEST_EVENT, open_app


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
