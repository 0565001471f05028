"""The state of a board's broker and of its streams, and the waits for one."""

from __future__ import annotations

from typing import Any

from flask_sse_emitters.testing import OpenStream
from flask_sse_emitters.types import BrokerFigures
from tests.support.board import Board
from tests.support.waiting import until


def broker_state(board: Board) -> BrokerFigures:
    return board.sse.stats()["broker"]


def await_state(board: Board, state: str) -> BrokerFigures:
    def found() -> list[BrokerFigures]:
        return [now for now in [broker_state(board)] if now["state"] == state]

    return until(found, f"{state}, not {broker_state(board)}")[0]


def await_end(board: Board, stream: OpenStream) -> None:
    """Wait until the streams of channel ``a`` have ended, as they do with ``retry``; discard the events of this one."""

    def has_ended() -> bool:
        stream.ready()
        return not any(emitter.is_open for emitter in board.sse.channel("a").emitters)

    until(has_ended, "the stream to end")


def subscribers(client: Any) -> int:
    """Return how many processes listen to the channel ``a``."""
    return int(client.pubsub_numsub("sse:{a}@0")[0][1])
