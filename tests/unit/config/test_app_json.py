"""The JSON of an app's events is that of its provider, though its encoder is kept."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider

from flask_sse_emitters.config.app_json import dumps_of

#: Data of each kind that the provider writes in its own way.
DATA: list[Any] = [
    {"b": 1, "a": [None, True, 1.5]},
    {"text": "größer", "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)},
    uuid.UUID(int=1),
    {2: "two", 1: "one"},
    float("inf"),
    "text",
]


class Shouting(DefaultJSONProvider):
    """Has its own way with what JSON does not know."""

    mark = "!"

    def default(self, value: Any) -> Any:
        return f"{value}{self.mark}"


class Own(DefaultJSONProvider):
    """Writes all data in its own way."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return f"<{obj}>"


@pytest.mark.parametrize("data", DATA, ids=repr)
def test_json_is_what_the_provider_writes_whatever_its_settings_are(data: Any) -> None:
    app = Flask(__name__)
    dumps, provider = dumps_of(app), app.json
    assert isinstance(provider, DefaultJSONProvider)
    for name, value in (("ensure_ascii", False), ("sort_keys", False), ("default", repr), ("ensure_ascii", True)):
        assert dumps(data) == provider.dumps(data)
        setattr(provider, name, value)
    assert dumps(data) == provider.dumps(data)


def test_json_of_keys_that_cannot_be_sorted_is_an_error_as_in_flask() -> None:
    app = Flask(__name__)
    with pytest.raises(TypeError):
        dumps_of(app)({1: "one", "b": "two"})


def test_json_follows_a_provider_that_is_set_later() -> None:
    app = Flask(__name__)
    dumps = dumps_of(app)
    assert dumps({"a": uuid.UUID(int=1)}) == '{"a": "00000000-0000-0000-0000-000000000001"}'
    app.json = Shouting(app)
    assert dumps({"a": 1j}) == '{"a": "1j!"}'
    app.json.mark = "?"
    assert dumps({"a": 1j}) == '{"a": "1j?"}'
    app.json = Own(app)
    assert dumps({"a": 1}) == "<{'a': 1}>"


def test_json_is_what_a_replaced_dumps_writes() -> None:
    app = Flask(__name__)
    dumps = dumps_of(app)
    app.json.dumps = lambda obj, **_: f"[{obj}]"  # type: ignore[method-assign]
    assert dumps(1) == "[1]"
