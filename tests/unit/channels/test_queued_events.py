"""Events that a channel's log has dropped, while they are still queued for the channel's clients."""

from __future__ import annotations

from contextlib import ExitStack

from flask_sse_emitters.testing import OpenStream
from tests.support.board import Board, read, texts


def test_events_dropped_from_log_but_still_queued_for_list_are_no_gap() -> None:
    board = Board(SSE_HISTORY=5)
    [first] = board.publish("a", 1)
    streams: list[OpenStream] = []

    class PublishingListener:
        """A listener that publishes more events, and reconnects a client, while it gets the second event."""

        clients = 0

        def started(self, *_: object) -> None:
            pass

        def arrived(self, *_: object) -> None:
            if not streams:
                board.publish("a", *range(3, 10))
                streams.append(stack.enter_context(board.open("a", last=first)))

    with ExitStack() as stack:
        board.sse._channels().broker.subscribe("a", PublishingListener())  # notified before the list
        stack.enter_context(board.open("a"))
        board.publish("a", 2)
        events = read(streams[0], 8)  # the rest is delivered in the background
    assert texts(events) == [str(number) for number in range(2, 10)]
