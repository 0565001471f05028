"""Channels of a process: the lifetimes of their streams, and what is left of a channel without clients."""

from __future__ import annotations

import gc

from flask_sse_emitters.streams.emitter import stream_of
from tests.support.board import Board


def test_subscription_timeouts_are_spread() -> None:
    """Clients that connected together do not reconnect together. A timeout given to ``subscribe`` is exact."""
    board = Board(SSE_TIMEOUT=1000)
    with board.app.app_context():
        deadlines = [stream_of(board.sse.channel("a").subscribe()).deadlines for _ in range(200)]
        lifetimes = [each.settings.timeout * each.lifetime_part for each in deadlines]
        assert 900 <= min(lifetimes) < 920
        assert 1080 < max(lifetimes) <= 1100
        assert stream_of(board.sse.channel("a").subscribe(timeout=50)).settings.timeout == 50
        assert stream_of(board.sse.channel("a").subscribe(timeout=0)).settings.timeout == 0
    board = Board(SSE_TIMEOUT=0)
    with board.app.app_context():
        assert stream_of(board.sse.channel("a").subscribe()).settings.timeout == 0


def test_channel_without_subscribers_leaves_no_subscription() -> None:
    board = Board()
    channels = board.sse._channels()
    for number in range(10):
        with board.open(f"user:{number}", "all") as stream:
            board.publish(f"user:{number}", "x")
            assert len(stream.ready()) == 1
    gc.collect()
    assert dict(channels._subscriptions) == {}
    records = channels.broker._records  # type: ignore[attr-defined]
    assert not any(record.audience.listeners for record in records.values())


def test_channels_pattern_leaves_nothing_for_a_name_without_clients() -> None:
    board = Board()
    board.sse.channels("job/*", max_clients=1, history=0)
    channels = board.sse._channels()
    with board.open("job/1"):
        assert list(channels._limits) == ["job/1"]
    board.emitters.clear()
    gc.collect()
    assert (dict(channels._limits), dict(channels._subscriptions)) == ({}, {})
    assert channels._options.of("job/2") == channels._options.of("job/1")
    assert not channels._options._by_name
