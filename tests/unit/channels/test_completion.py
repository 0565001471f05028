"""Streams that are completed amid their channels' events: they get what was published before, and nothing later."""

from __future__ import annotations

import pytest

from flask_sse_emitters import CloseReason, SseEmitters
from flask_sse_emitters.streams.emitter import stream_of
from tests.support.board import Board, texts
from tests.support.waiting import until
from tests.unit.channels.held_board import HeldBoard


def test_stream_completed_before_channel_is_located_leaves_after_it(held: HeldBoard) -> None:
    subscription = held.sse._channels().subscription("a")
    with held.open("a", last="epoch-0") as stream:
        emitter = next(iter(held.sse.channel("a").emitters))
        held.publish("a", 1)
        emitter.complete()
        assert not emitter.is_open
        assert stream.ready() == []
        assert emitter in held.sse.channel("a").emitters
        held.broker.start("a")
        assert emitter not in held.sse.channel("a").emitters
        assert texts(stream.ready()) == ["1"]
    assert held.sse.stats()["closed"] == {"completed": 1}
    assert subscription._waiting == {}
    assert held.broker.listeners["a"] == []


@pytest.mark.parametrize("last", [None, 0], ids=["live", "catching up"])
def test_stream_completed_after_publish_gets_events_still_to_arrive(held: HeldBoard, last: int | None) -> None:
    ids = held.publish("a", 1, 2)
    with held.open("a") as other:
        held.broker.start("a")
        with held.open("a", last=None if last is None else ids[last]) as stream:
            missed = ["2"] if last is not None else []
            assert texts(stream.ready()) == missed
            emitter = list(held.sse.channel("a").emitters)[-1]
            held.publish("a", 3, 4)
            emitter.complete()
            assert not emitter.is_open
            assert not emitter.try_send("too late")
            assert stream.ready() == []
            held.broker.deliver("a", 1)
            assert texts(stream.ready()) == ["3"]
            held.broker.deliver("a", 1)
            held.publish("a", 5)
            held.broker.deliver("a")
            assert texts(stream.ready()) == ["4"]
        assert texts(other.ready()) == ["3", "4", "5"]


def test_completed_stream_may_get_more_events_than_max_pending() -> None:
    """It is no slow client: the broker has delivered all of that at once."""
    held = HeldBoard(SSE_MAX_PENDING=2)
    with held.open("a") as stream:
        held.broker.start("a")
        emitter = next(iter(held.sse.channel("a").emitters))
        held.publish("a", *range(5))
        emitter.complete()
        held.broker.deliver("a")
        assert texts(stream.ready()) == [*"01234"]
        assert emitter.close_reason is CloseReason.COMPLETED


@pytest.mark.parametrize("completed", ["another channel", "plain list"])
def test_stream_completed_by_list_gets_events_of_all_its_channels(held: HeldBoard, completed: str) -> None:
    with held.open("a", "b") as stream:
        held.broker.start("a")
        held.broker.start("b")
        assert stream.ready() == []
        emitter = next(iter(held.sse.channel("b").emitters))
        plain = SseEmitters()
        plain.add(emitter)
        held.publish("b", 1)
        (plain if completed == "plain list" else held.sse.channel("a").emitters).complete()
        until(lambda: not emitter.is_open, "its end")
        assert stream.ready() == []
        held.broker.deliver("b")
        assert texts(stream.ready()) == ["1"]
        assert [len(held.sse.channel(name).emitters) for name in "ab"] == [0, 0]


@pytest.mark.parametrize("end", ["complete", "remove"])
def test_stream_that_app_and_channel_end_at_once_takes_nothing_later(board: Board, end: str) -> None:
    """The app takes what is queued for it, as another thread delivers that: the end is among it, and more events."""
    with board.open("a") as stream:
        emitters = board.sse.channel("a").emitters
        [emitter] = emitters
        delivery = emitters._delivery
        delivery._is_passing = True  # another thread does
        board.publish("a", 1)
        board.sse.publish("a", 2, last=True)
        board.publish("a", "new")
        assert emitter.pending == 3
        if end == "complete":
            emitter.complete()
        else:
            emitters.remove(emitter)
        assert emitter.close_reason is CloseReason.COMPLETED
        assert texts(stream.ready()) == ["1", "2", ""]


def test_stream_of_two_channels_gets_nothing_once_both_have_ended(board: Board) -> None:
    """One of them goes on before the stream has ended: its client would get a part of that, and then the end."""
    with board.open("a", "b") as stream:
        for name in "ab":
            board.sse.channel(name).emitters._delivery._is_passing = True  # another thread delivers
        [emitter] = board.sse.channel("a").emitters
        a, b = stream_of(emitter).outgoing.members
        board.sse.publish("b", "b1", last=True)
        b.take_queued()
        board.sse.publish("a", "a1", last=True)
        a.take_queued()
        assert (a.has_ended, b.has_ended) == (True, False)
        board.publish("b", "new")
        b.take_queued()
        assert texts(stream.ready()) == ["b1", "a1", ""]
        assert emitter.close_reason is CloseReason.COMPLETED
