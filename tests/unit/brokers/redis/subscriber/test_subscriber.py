"""The parts of the Redis subscriber without I/O: its clock, the liveness of a connection, and the order of events."""

from __future__ import annotations

import pytest

from flask_sse_emitters.brokers import Bounds, Frame, Log, Position
from flask_sse_emitters.brokers.listening.lookup import UNKNOWN, Announcement, KnownEvent, Lookup, continues, newer
from flask_sse_emitters.brokers.listening.topics import Topic
from flask_sse_emitters.brokers.redis.subscriber.catch_up import Order, order_of
from flask_sse_emitters.brokers.redis.subscriber.liveness import (
    GONE_AFTER_SECONDS,
    PING_AFTER_SECONDS,
    Liveness,
    Phase,
)
from flask_sse_emitters.brokers.remote.clock import LATE_SECONDS, SKEW_SECONDS, ServerClock
from tests.support.brokers.broker_calls import RecordingListener
from tests.unit.doubles.clock import ManualScheduler

BOUNDS = Bounds(1000, 0)


def announced(offset: int, epoch: str = "one", at_ms: int = 0) -> Announcement:
    return Announcement(epoch, offset, at_ms, BOUNDS, Frame(b"data: %d\n\n" % offset, "message"))


def looked_up(*offsets: int, newest: int, epoch: str = "one", former: tuple[Position, ...] = ()) -> Lookup:
    return Lookup(epoch, newest, newest, 0, [announced(each, epoch) for each in offsets], list(former))


# The clock of Redis.


def test_redis_time_is_translated_by_clock_skew_and_never_later_than_now() -> None:
    clock = ServerClock(lambda: 100.0)
    assert clock.to_local(5_000) == 100.0, "before clocks are compared"
    clock.note(1_007_000)
    assert [clock.to_local(at) for at in (1_006_500, 1_007_000, 1_008_000)] == [99.5, 100.0, 100.0]


def test_clock_comparison_with_least_delay_counts_until_it_is_old(scheduler: ManualScheduler) -> None:
    clock = ServerClock(scheduler.clock)
    clock.note(50_000)
    scheduler.pass_time(1.0)
    clock.note(50_500)  # took half a second to arrive
    assert clock.to_local(50_000) == 1000.0
    scheduler.pass_time(1.0)
    clock.note(52_250)  # so the first one took a quarter of a second
    assert clock.to_local(50_000) == 999.75
    scheduler.pass_time(SKEW_SECONDS + 1)
    clock.note(52_250 + int(SKEW_SECONDS * 1000))  # it lags by one second since
    assert clock.to_local(50_000) == 1000.75


def test_late_event_makes_redis_time_now_until_next_comparison(scheduler: ManualScheduler) -> None:
    clock = ServerClock(scheduler.clock)
    clock.note(50_000)
    scheduler.pass_time(LATE_SECONDS)
    clock.doubt_if_late(50_000)
    assert clock.to_local(50_000) == 1000.0, "it is not late yet"
    scheduler.pass_time(0.5)
    clock.doubt_if_late(50_000)
    assert clock.to_local(50_000) == scheduler.now
    clock.note(50_000)
    assert clock.to_local(49_000) == scheduler.now - 1


# Liveness of a connection.


def test_connection_is_pinged_while_it_settles_and_after_silence() -> None:
    liveness = Liveness(10.0)
    assert liveness.due == 10.0
    assert liveness.check(10.0)
    liveness.phase = Phase.SETTLED
    assert liveness.due == 10.0 + PING_AFTER_SECONDS
    assert not liveness.check(9.9 + PING_AFTER_SECONDS)
    assert liveness.check(10.0 + PING_AFTER_SECONDS)
    liveness.received(20.0)
    assert liveness.due == 20.0 + PING_AFTER_SECONDS
    assert not liveness.check(20.0)


def test_connection_that_does_not_answer_a_ping_times_out() -> None:
    liveness = Liveness(10.0)
    liveness.phase = Phase.SETTLED
    liveness.pinged(13.0)
    liveness.received(17.0)
    assert not liveness.check(18.0), "any message is an answer"
    assert liveness.check(20.0)
    liveness.pinged(20.0)
    with pytest.raises(TimeoutError, match="it has not answered for 8 s"):
        liveness.check(17.0 + GONE_AFTER_SECONDS)


@pytest.mark.parametrize("phase", Phase)
def test_no_second_ping_while_one_awaits_its_answer(phase: Phase) -> None:
    liveness = Liveness(10.0)
    liveness.phase = phase
    liveness.pinged(13.0)
    assert not liveness.check(13.0)
    assert liveness.due == 13.0 + GONE_AFTER_SECONDS - PING_AFTER_SECONDS
    assert not liveness.check(liveness.due - 0.1)


# Order of events.


ORDERS = {
    "the next": (announced(8, at_ms=900), Order.NEXT),
    "the next, after a clock was put back": (announced(8, at_ms=500), Order.NEXT),
    "one is missing": (announced(9, at_ms=900), Order.UNCLEAR),
    "one is missing, after a clock was put back": (announced(9, at_ms=500), Order.UNCLEAR),
    "another epoch": (announced(8, "two", at_ms=900), Order.UNCLEAR),
    "another epoch, and an old offset": (announced(3, "two", at_ms=100), Order.UNCLEAR),
    "the newest, repeated": (announced(7, at_ms=700), Order.SEEN),
    "an old one, repeated": (announced(6, at_ms=600), Order.SEEN),
    "another event of the newest's offset": (announced(7, at_ms=699), Order.UNCLEAR),
    "an old offset, reused": (announced(6, at_ms=701), Order.UNCLEAR),
}


@pytest.mark.parametrize(("event", "order"), ORDERS.values(), ids=ORDERS)
def test_order_of_announced_event_is_next_seen_or_unclear(event: Announcement, order: Order) -> None:
    assert order_of(event, "one", newest=7, newest_ms=700) is order


LOOKUPS = {
    "the next ones": (looked_up(8, 9, newest=9), True),
    "nothing new": (looked_up(newest=7), True),
    "one is gone": (looked_up(9, newest=9), False),
    "it begins before": (looked_up(7, 8, newest=8), False),
    "Redis lost one": (looked_up(newest=6), False),
    "another epoch": (looked_up(8, newest=8, epoch="two"), False),
    "it went on under another epoch": (looked_up(8, newest=8, epoch="two", former=(Position("one", 7),)), True),
    "it went on without one": (looked_up(8, newest=8, epoch="two", former=(Position("one", 6),)), False),
    "it went on under two others": (
        looked_up(8, newest=8, epoch="two", former=(Position("new", 7), Position("one", 7))),
        True,
    ),
}


@pytest.mark.parametrize(("lookup", "does"), LOOKUPS.values(), ids=LOOKUPS)
def test_lookup_continues_log_if_it_begins_at_its_end(lookup: Lookup, does: bool) -> None:
    assert continues(Log("one", 7, lambda: 0.0), lookup) is does


def offsets(listener: RecordingListener) -> list[int]:
    return [frame.offset for frame in listener.frames]


@pytest.fixture
def clock() -> ServerClock:
    return ServerClock(lambda: 100.0)


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture
def topic(listener: RecordingListener, clock: ServerClock) -> Topic:
    """A topic that has caught up with the two events of its channel."""
    topic = Topic("a")
    topic.listeners = (listener,)
    assert topic.catch_up(looked_up(1, 2, newest=2), clock)
    assert (listener.starts, listener.log, listener.newest, offsets(listener)) == (1, topic.log, 2, [])
    return topic


def test_topic_catch_up_delivers_missed_events_until_it_has_all(
    topic: Topic, listener: RecordingListener, clock: ServerClock
) -> None:
    assert topic.catch_up(looked_up(3, 4, newest=4), clock)
    assert (offsets(listener), listener.starts) == ([3, 4], 1)
    assert topic.known == KnownEvent("one", 4, 4, is_sure=True)
    topic.is_behind = True
    assert not topic.catch_up(looked_up(5, newest=6), clock)
    assert topic.is_behind
    assert topic.catch_up(looked_up(6, newest=6), clock)
    assert not topic.is_behind
    assert offsets(listener) == [3, 4, 5, 6]


def test_topic_that_lost_events_restarts_listeners_with_complete_log(
    topic: Topic, listener: RecordingListener, clock: ServerClock
) -> None:
    assert not topic.catch_up(looked_up(7, 8, newest=9), clock)
    assert listener.starts == 1
    assert topic.catch_up(looked_up(9, newest=9), clock)
    assert topic.log is not None
    assert (listener.starts, listener.log, listener.newest, topic.log.oldest) == (2, topic.log, 9, 7)
    assert offsets(listener) == []


def test_topic_keeps_log_if_offsets_continue_in_another_epoch(
    topic: Topic, listener: RecordingListener, clock: ServerClock
) -> None:
    assert topic.catch_up(looked_up(3, newest=3, epoch="two", former=(Position("one", 2),)), clock)
    assert topic.log is not None
    assert [str(topic.log.position(offset)) for offset in (2, 3)] == ["one-2", "two-3"]
    assert (offsets(listener), listener.starts) == ([3], 1)


def test_newer_of_two_known_events_counts() -> None:
    old, new = KnownEvent("one", 1, 5, is_sure=True), KnownEvent("one", 2, 4, is_sure=False)
    assert newer(old, new) == newer(new, old) == new
    assert newer(new, new._replace(is_sure=True)).is_sure
    other = KnownEvent("two", 1, 6, is_sure=False)
    assert newer(other, new) == newer(new, other) == other
    assert newer(UNKNOWN, old) == old
