"""The parts of the Redis subscriber that do no I/O: its clock, the liveness of a connection, and what is next."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters.brokers import Bounds, Frame, Log, Position, Start
from flask_sse_emitters.brokers.redis.messages import UNKNOWN, Announcement, KnownEvent, Lookup, newer
from flask_sse_emitters.brokers.redis.subscriber.catch_up import Order, continues, order_of
from flask_sse_emitters.brokers.redis.subscriber.clock import LATE_SECONDS, SKEW_SECONDS, RedisClock
from flask_sse_emitters.brokers.redis.subscriber.liveness import (
    GONE_AFTER_SECONDS,
    PING_AFTER_SECONDS,
    Liveness,
    Phase,
)
from flask_sse_emitters.brokers.redis.subscriber.topics import Topic

BOUNDS = Bounds(1000, 0)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def announced(offset: int, epoch: str = "one", at_ms: int = 0) -> Announcement:
    return Announcement(epoch, offset, at_ms, BOUNDS, Frame(b"data: %d\n\n" % offset, "message"))


def looked_up(*offsets: int, newest: int, epoch: str = "one", former: tuple[Position, ...] = ()) -> Lookup:
    return Lookup(epoch, newest, newest, 0, [announced(each, epoch) for each in offsets], list(former))


# The clock of Redis.


def test_a_time_of_redis_counts_as_now_until_the_clocks_were_compared() -> None:
    clock = RedisClock(lambda: 100.0)
    assert clock.to_local(5_000) == 100.0


def test_a_time_of_redis_is_translated_by_how_far_the_clocks_differ() -> None:
    clock = RedisClock(lambda: 100.0)
    clock.note(1_007_000)
    assert clock.to_local(1_006_500) == 99.5
    assert clock.to_local(1_007_000) == 100.0


def test_a_time_of_redis_is_never_later_than_now() -> None:
    clock = RedisClock(lambda: 100.0)
    clock.note(1_000)
    assert clock.to_local(9_000) == 100.0


def test_of_several_comparisons_the_one_with_the_least_delay_counts() -> None:
    now = Clock(100.0)
    clock = RedisClock(now)
    clock.note(50_000)
    now.now += 1.0
    clock.note(50_500)  # half a second on its way
    assert clock.to_local(50_000) == 100.0
    now.now += 1.0
    clock.note(52_250)  # and the one before was a quarter
    assert clock.to_local(50_000) == 99.75


def test_a_comparison_that_is_too_old_gives_way_to_the_next_one() -> None:
    now = Clock(100.0)
    clock = RedisClock(now)
    clock.note(50_000)
    now.now += SKEW_SECONDS + 1
    clock.note(50_000 + int(SKEW_SECONDS * 1000))  # it lags by one second since
    assert clock.to_local(50_000) == 101.0


def test_an_event_that_comes_late_makes_times_count_as_now_until_the_next_comparison() -> None:
    now = Clock(100.0)
    clock = RedisClock(now)
    clock.note(50_000)
    now.now += LATE_SECONDS
    clock.doubt_if_late(50_000)
    assert clock.to_local(50_000) == 100.0, "it is not late yet"
    now.now += 0.5
    clock.doubt_if_late(50_000)
    assert clock.to_local(50_000) == now.now
    clock.note(50_000)
    assert clock.to_local(49_000) == now.now - 1


# Whether a connection is alive.


def test_a_connection_that_is_settling_is_pinged_at_once() -> None:
    liveness = Liveness(10.0)
    assert liveness.due == 10.0
    assert liveness.check(10.0)


def test_a_settled_connection_is_pinged_after_some_silence() -> None:
    liveness = Liveness(10.0)
    liveness.phase = Phase.SETTLED
    assert liveness.due == 10.0 + PING_AFTER_SECONDS
    assert not liveness.check(9.9 + PING_AFTER_SECONDS)
    assert liveness.check(10.0 + PING_AFTER_SECONDS)
    liveness.received(20.0)
    assert liveness.due == 20.0 + PING_AFTER_SECONDS
    assert not liveness.check(20.0)


@pytest.mark.parametrize("phase", Phase)
def test_no_second_ping_follows_one_that_awaits_its_answer(phase: Phase) -> None:
    liveness = Liveness(10.0)
    liveness.phase = phase
    liveness.pinged(13.0)
    assert not liveness.check(13.0)
    assert liveness.due == 13.0 + GONE_AFTER_SECONDS - PING_AFTER_SECONDS
    assert not liveness.check(liveness.due - 0.1)


def test_a_connection_that_does_not_answer_a_ping_is_gone() -> None:
    liveness = Liveness(10.0)
    liveness.phase = Phase.SETTLED
    liveness.pinged(10.0 + PING_AFTER_SECONDS)
    with pytest.raises(TimeoutError, match="it has not answered for 8 s"):
        liveness.check(10.0 + GONE_AFTER_SECONDS)


def test_whatever_comes_answers_a_ping() -> None:
    liveness = Liveness(10.0)
    liveness.phase = Phase.SETTLED
    liveness.pinged(13.0)
    liveness.received(17.0)
    assert not liveness.check(18.0)
    assert liveness.check(20.0)


# What is next.


@pytest.mark.parametrize(
    ("event", "order"),
    [
        (announced(8, at_ms=900), Order.NEXT),
        (announced(8, at_ms=500), Order.NEXT),
        (announced(9, at_ms=900), Order.UNCLEAR),
        (announced(9, at_ms=500), Order.UNCLEAR),
        (announced(8, "two", at_ms=900), Order.UNCLEAR),
        (announced(3, "two", at_ms=100), Order.UNCLEAR),
        (announced(7, at_ms=700), Order.SEEN),
        (announced(6, at_ms=600), Order.SEEN),
        (announced(7, at_ms=699), Order.UNCLEAR),
        (announced(6, at_ms=701), Order.UNCLEAR),
    ],
    ids=[
        "the next",
        "the next, after a clock was put back",
        "one is missing",
        "one is missing, after a clock was put back",
        "another epoch",
        "another epoch, and an old offset",
        "the newest again",
        "an old one again",
        "another event of the newest's offset",
        "an old offset, given again",
    ],
)
def test_an_announced_event_is_next_or_seen_or_shows_that_the_channel_must_be_looked_up(
    event: Announcement, order: Order
) -> None:
    assert order_of(event, "one", newest=7, newest_ms=700) is order


@pytest.mark.parametrize(
    ("lookup", "does"),
    [
        (looked_up(8, 9, newest=9), True),
        (looked_up(newest=7), True),
        (looked_up(9, newest=9), False),
        (looked_up(7, 8, newest=8), False),
        (looked_up(newest=6), False),
        (looked_up(8, newest=8, epoch="two"), False),
        (looked_up(8, newest=8, epoch="two", former=(Position("one", 7),)), True),
        (looked_up(8, newest=8, epoch="two", former=(Position("one", 6),)), False),
        (looked_up(8, newest=8, epoch="two", former=(Position("new", 7), Position("one", 7))), True),
    ],
    ids=[
        "the next ones",
        "nothing new",
        "one is gone",
        "it begins before",
        "Redis lost one",
        "another epoch",
        "it went on under another epoch",
        "it went on without one",
        "it went on under two others",
    ],
)
def test_a_lookup_continues_a_log_where_it_begins_at_its_end(lookup: Lookup, does: bool) -> None:
    assert continues(Log("one", 7, Clock(0.0)), lookup) is does


class Recorder:
    """A listener that notes what it receives."""

    clients = 1

    def __init__(self) -> None:
        self.starts: list[Start] = []
        self.offsets: list[int] = []

    def started(self, start: Start) -> None:
        self.starts.append(start)

    def arrived(self, frames: Any) -> None:
        self.offsets += [frame.offset for frame in frames]


@pytest.fixture
def clock() -> RedisClock:
    return RedisClock(Clock(100.0))


@pytest.fixture
def listener() -> Recorder:
    return Recorder()


@pytest.fixture
def topic(listener: Recorder, clock: RedisClock) -> Topic:
    """A topic that has caught up with the two events of its channel."""
    topic = Topic("a")
    topic.listeners = (listener,)
    assert topic.catch_up(looked_up(1, 2, newest=2), clock)
    [start] = listener.starts
    assert (start.log, start.newest, listener.offsets) == (topic.log, 2, [])
    return topic


def test_a_topic_that_catches_up_delivers_what_it_lacked(topic: Topic, listener: Recorder, clock: RedisClock) -> None:
    assert topic.catch_up(looked_up(3, 4, newest=4), clock)
    assert listener.offsets == [3, 4]
    assert len(listener.starts) == 1
    assert topic.known == KnownEvent("one", 4, 4, is_sure=True)


def test_a_topic_is_behind_until_it_has_all_that_redis_has(topic: Topic, listener: Recorder, clock: RedisClock) -> None:
    topic.is_behind = True
    assert not topic.catch_up(looked_up(3, 4, newest=5), clock)
    assert topic.is_behind
    assert topic.catch_up(looked_up(5, newest=5), clock)
    assert not topic.is_behind
    assert listener.offsets == [3, 4, 5]


def test_a_topic_whose_events_are_gone_starts_its_listeners_again_once_the_new_log_is_complete(
    topic: Topic, listener: Recorder, clock: RedisClock
) -> None:
    assert not topic.catch_up(looked_up(7, 8, newest=9), clock)
    assert len(listener.starts) == 1
    assert topic.catch_up(looked_up(9, newest=9), clock)
    _, start = listener.starts
    assert (start.log, start.newest, start.log.oldest) == (topic.log, 9, 7)
    assert listener.offsets == []


def test_a_topic_whose_offsets_go_on_under_another_epoch_keeps_its_log(
    topic: Topic, listener: Recorder, clock: RedisClock
) -> None:
    assert topic.catch_up(looked_up(3, newest=3, epoch="two", former=(Position("one", 2),)), clock)
    assert topic.log is not None
    assert [str(topic.log.position(offset)) for offset in (2, 3)] == ["one-2", "two-3"]
    assert (listener.offsets, len(listener.starts)) == ([3], 1)


def test_of_two_known_events_the_newer_one_counts() -> None:
    old, new = KnownEvent("one", 1, 5, is_sure=True), KnownEvent("one", 2, 4, is_sure=False)
    assert newer(old, new) == newer(new, old) == new
    assert newer(new, new._replace(is_sure=True)).is_sure
    other = KnownEvent("two", 1, 6, is_sure=False)
    assert newer(other, new) == newer(new, other) == other
    assert newer(UNKNOWN, old) == old
