"""Lists with a name, as views and modules use them."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_sse_emitters import SSE, SseEmitter, SseEmitters
from tests.support.board import Board


def test_named_list_is_the_same_wherever_its_name_is_given() -> None:
    """A module has made it before there was an app; its code runs again; a view asks for it."""
    before = SseEmitters("everywhere")
    app = Flask(__name__)
    SSE(app)
    with app.app_context():
        emitter = before.add(SseEmitter())
        again = SseEmitters("everywhere")
        assert again == before
        assert {again, before} == {before}
        assert emitter in again
        assert again.send("x") == 1
    assert emitter.pending == 1
    assert SseEmitters("elsewhere") != before
    assert SseEmitters() != SseEmitters()
    again.remove(emitter)
    assert len(before) == 0


def test_named_list_says_its_name_and_a_channels_list_that_of_the_channel(board: Board) -> None:
    with board.app.app_context():
        of_channel = board.sse.channel("news").emitters
        assert of_channel == board.sse.channel("news").emitters
    assert (SseEmitters("chart").name, SseEmitters().name, of_channel.name) == ("chart", None, "news")
    assert repr(SseEmitters("chart")) == "<SseEmitters 'chart' of 0>"


def test_named_list_is_no_channel_in_the_figures_of_its_streams(board: Board) -> None:
    """A list may have the name of a channel."""
    emitters = SseEmitters("news")
    with board.app.test_request_context("/"):
        emitter = emitters.add(SseEmitter())
        response = emitter.response()
    emitters.send("x")
    [slow] = board.sse.stats()["slow"]
    assert (slow["channels"], slow["pending"]) == ([], 1)
    assert "news" not in board.sse.stats()["channels"]
    emitters.complete()
    response.close()


def test_named_list_has_the_clients_of_every_app_of_its_process() -> None:
    """Also those that a test has left open, as a list of its module would."""
    clients = [_app().test_client() for _ in range(2)]
    responses = [client.get("/connect") for client in clients]
    assert clients[0].post("/send").text == "2"
    SseEmitters("of apps").complete()
    assert ["data: x" in response.text for response in responses] == [True, True]


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_named_list_with_an_unusable_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a list has 1 to 200 characters"):
        SseEmitters(name)


def _app() -> Flask:
    app = Flask(__name__)
    SSE(app)
    emitters = SseEmitters("of apps")
    app.add_url_rule("/connect", "connect", lambda: emitters.add(SseEmitter()))
    app.add_url_rule("/send", "send", lambda: str(emitters.send("x")), methods=["POST"])
    return app
