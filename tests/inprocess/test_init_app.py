"""Setting the extension up: which apps ``init_app`` takes, and the one app or the several that it serves."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE, NotInitialized, SseEmitter
from tests.support.board import Board, completed


def test_init_app_twice_for_one_app_is_rejected(board: Board) -> None:
    for again in (board.sse, SSE()):
        with pytest.raises(RuntimeError, match="this app has an SSE already"):
            again.init_app(board.app)


@pytest.mark.parametrize("app", ["app", None.__class__, object()])
def test_init_app_for_something_else_than_an_app_is_rejected(app: Any) -> None:
    with pytest.raises(TypeError, match="take the Flask app, not"):
        SSE(app)


def test_init_app_of_several_apps_keeps_them_apart() -> None:
    sse = SSE()
    for name, retry in (("one", 1), ("two", 2)):
        app = Flask(name)
        app.config["SSE_RETRY"] = retry
        sse.init_app(app)
        app.add_url_rule("/", view_func=lambda: completed(SseEmitter()))
        assert f"retry: {retry}\n" in app.test_client().get("/").text
        assert "sse_emitters" in app.extensions


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
    with apps[0].app_context():
        assert sse.stats()["published"] == 0


def test_calls_in_the_context_of_another_app_use_their_own(board: Board) -> None:
    other = Board()
    with other.app.app_context():
        event_id = board.sse.publish("a", "x")
    assert board.sse.stats()["published"] == 1
    assert (other.sse.stats()["published"], event_id[-2:]) == (0, "-1")


def test_extension_registered_as_a_blueprint_is_an_error_with_advice(board: Board) -> None:
    sse: Any = SSE()
    with pytest.raises(TypeError, match=re.escape("app.register_blueprint(sse.blueprint, url_prefix=...)")):
        board.app.register_blueprint(sse, url_prefix="/events")
