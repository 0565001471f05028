"""Grants: access for a limited time."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters import CloseReason
from flask_sse_emitters.access import Grant
from tests.support.board import Board
from tests.support.waiting import until


def test_grant_expiry_ends_the_stream_as_a_timeout() -> None:
    board = Board(lambda channel: Grant("ann", seconds=0.05 if channel == "b" else 3600))
    with board.open("a", "b") as stream:
        [emitter] = board.emitters
        until(lambda: not emitter.is_open, "its end")
        assert emitter.close_reason is CloseReason.TIMEOUT
        board.sse.publish("a", "late")
        assert stream.ready() == []


@pytest.mark.parametrize(
    ("seconds", "error"),
    [("60", TypeError), (True, TypeError), (float("inf"), ValueError), (float("nan"), ValueError)],
)
def test_grant_seconds_must_be_finite(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seconds"):
        Grant(seconds=seconds)
