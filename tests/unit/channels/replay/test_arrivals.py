"""Clients that come from a process that is ahead of this one."""

from __future__ import annotations

from flask_sse_emitters.brokers import Log
from flask_sse_emitters.channels.replay.arrivals import arrive
from tests.support.board import Board
from tests.support.brokers.broker_calls import KEPT, frame


def test_client_told_of_an_end_that_is_not_here_yet_has_nothing_left(board: Board) -> None:
    """Else it would get all of it again. One that was told nothing waits for the rest, and nobody is asked."""
    channels = board.sse._channels()
    board.sse.publish("a", "whole", last=True)
    subscription = channels.subscription("a")
    subscription.log = Log(channels.broker.state("a").epoch, 0, lambda: 0.0)
    subscription.log.append(frame("whole"), KEPT)
    assert arrive("~end", [subscription], [None]) is None
    assert arrive(None, [subscription], [None]) is not None


def test_client_told_of_an_end_begins_with_the_run_that_has_begun_since(board: Board) -> None:
    channels = board.sse._channels()
    board.sse.publish("a", "whole", last=True)
    assert channels.broker.start_run("a", "run", 600)
    assert arrive("~end", [channels.subscription("a")], [None]) is not None
