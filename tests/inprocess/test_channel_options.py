"""The options of a channel: when they hold, which are rejected, and how many clients it takes."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from flask_sse_emitters import CloseReason, SseEmitter, TooManyClients
from tests.support.board import Board


def test_channel_options_hold_for_later_calls(board: Board) -> None:
    board.sse.channel("a", history=1, max_clients=2)
    board.sse.channel("a", public=True)
    board.sse.channel("a")
    ids = board.publish("a", 1, 2, 3)
    assert len(board.replayed("a", last=ids[0])[1:]) == 1


@pytest.mark.parametrize("option", ["history", "max_clients"])
def test_channel_options_that_contradict_earlier_ones_are_rejected(board: Board, option: str) -> None:
    given: dict[str, Any] = {option: 3}
    board.sse.channel("a", **given)
    board.sse.channel("a", **given)
    with pytest.raises(ValueError, match=rf"{option}=4 contradicts sse.channel\('a', {option}=3\)"):
        board.sse.channel("a", public=True, **{**given, option: 4})
    board.sse.channel("a", **given)
    board.sse.channel("a", public=False)  # so the rejected call has not made it public


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"history": -1}, "history must be an int, 0 or more"), ({"max_clients": 0}, "max_clients must be an int, 1 or")],
)
def test_channel_options_that_are_invalid_are_rejected(board: Board, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        board.sse.channel("a", **options)


def test_channel_max_clients_ends_further_streams_with_a_retry(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    board.sse.channel("a", max_clients=2)
    with board.open("a"), board.open("a", "b"):
        answers = [board.get("/events/a") for _ in range(20)]
        assert board.sse.channel("a").subscribers() == 2
        with board.open("b"):
            assert board.sse.channel("b").subscribers() == 2
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.data for answer in answers}) > 5, "at different times"
    for answer in answers:
        match = re.fullmatch(rb"retry: (\d+)\n\nid: \S+-0\n\n", answer.data)
        assert match is not None, "with its position: what is published before its next attempt is not lost"
        assert 1500 <= int(match[1]) <= 6000
    assert board.sse.stats()["refused"] == 20
    assert [record.levelno for record in caplog.records if "max_clients=2" in record.message] == [logging.WARNING]
    with board.open("a"):
        assert board.sse.channel("a").subscribers() == 1


def test_channel_max_clients_is_the_error_of_a_refused_emitter(board: Board) -> None:
    """Also where the view has sent an event to it already, as it may always do."""
    board.sse.channel("a", max_clients=1)
    made: list[SseEmitter] = []

    @board.app.get("/mine")
    def mine() -> Any:
        made.append(board.sse.channel("a").subscribe())
        made[-1].send("hello")
        return made[-1]

    with board.open("a"):
        answer = board.client.get("/mine")
    assert (answer.status_code, answer.data[:7]) == (200, b"retry: ")
    [emitter] = made
    assert emitter.close_reason is CloseReason.ERROR
    assert isinstance(emitter.error, TooManyClients)
    assert "max_clients=1 of the channel 'a'" in str(emitter.error)
