"""A stream of a board that a test reads up to its end, and no further."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.testing import OpenStream
from tests.support.board import Board, texts
from tests.support.waiting import until


class Watched:
    """An open stream, and what it has received so far."""

    def __init__(self, stream: OpenStream, emitter: SseEmitter) -> None:
        self.stream = stream
        self.emitter = emitter
        self.texts: list[str] = []

    @property
    def is_open(self) -> bool:
        return self.emitter.is_open

    def read(self) -> list[str]:
        self.texts += texts(self.stream.ready())
        return self.texts

    def await_end(self) -> list[str]:
        """Wait for the end that a revocation brings, and return all texts."""
        until(lambda: not self.is_open, "its end")
        assert self.emitter.close_reason is CloseReason.COMPLETED
        return self.read()

    def await_text(self, text: str) -> None:
        until(lambda: text in self.read(), text)


@contextmanager
def watching(board: Board, *channels: str, user: str = "", **options: Any) -> Iterator[Watched]:
    with board.open(*channels, user=user, **options) as stream:
        yield Watched(stream, board.emitters[-1])


def settle(publisher: Board, *streams: Watched, channel: str = "a") -> None:
    """Wait until what is published reaches all of them."""
    publisher.sse.publish(channel, "begin")
    for watched in streams:
        watched.await_text("begin")
