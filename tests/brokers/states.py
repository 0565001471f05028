"""The state of a board's broker and of its streams, and the waits for one."""

from __future__ import annotations

from typing import Any

from flask_sse_emitters.testing import OpenStream
from tests.support.board import Board
from tests.support.waiting import until


def broker_state(board: Board) -> dict[str, Any]:
    state: dict[str, Any] = board.sse.stats()["broker"]
    return state


def await_state(board: Board, state: str) -> dict[str, Any]:
    return until(
        lambda: (found := broker_state(board))["state"] == state and found, f"{state}, not {broker_state(board)}"
    )


def await_end(board: Board, stream: OpenStream) -> None:
    """Wait until the streams of channel ``a`` have ended, as they do with ``retry``; discard the events of this one."""

    def has_ended() -> bool:
        stream.ready()
        return not any(emitter.is_open for emitter in board.sse.channel("a").emitters)

    until(has_ended, "the stream to end")


def subscribers(client: Any) -> int:
    """Return how many processes listen to the channel ``a``."""
    return int(client.pubsub_numsub("sse:{a}@0")[0][1])
