"""The log of a channel, and the ids of its events."""

from __future__ import annotations

import re

import pytest

from flask_sse_emitters.brokers.event_ids import Position, new_epoch, read_ids
from flask_sse_emitters.brokers.event_log import Bounds, Log
from flask_sse_emitters.wire.frame import CHANNEL_END, Frame
from tests.unit.doubles.clock import ManualScheduler


class Kept:
    """A log, and what is published into it."""

    def __init__(self, scheduler: ManualScheduler) -> None:
        self.log = Log("epoch", 0, scheduler.clock)

    def append(self, n: int, events: int = 1000, seconds: float = 0.0) -> None:
        for _ in range(n):
            text = b"data: %d\n\n" % (self.log.newest + 1)
            with self.log.guard:
                self.log.append(Frame(text, "message"), Bounds(events, seconds))

    def end(self, events: int = 1000, seconds: float = 0.0) -> None:
        with self.log.guard:
            self.log.append(CHANNEL_END, Bounds(events, seconds))

    def offsets(self, after: int, upto: int = 10**9, room: int = 65_536) -> list[int]:
        return [frame.offset for frame in self.log.after(after, upto, room)]


@pytest.fixture
def kept(scheduler: ManualScheduler) -> Kept:
    return Kept(scheduler)


def test_log_after_returns_events_between_two_offsets_with_room_for_one(kept: Kept) -> None:
    kept.append(5)
    assert kept.offsets(0) == [1, 2, 3, 4, 5]
    assert kept.offsets(2, 4) == [3, 4]
    assert kept.offsets(4, 4) == kept.offsets(5) == kept.offsets(9) == []
    size = len(kept.log.after(0, 1)[0].payload)
    assert kept.log.after(2, 3)[0].payload == b"id: epoch-3\ndata: 3\n\n"
    assert [kept.offsets(0, room=room) for room in (size * 2, size * 2 - 1, 0)] == [[1, 2], [1], [1]]


def test_log_keeps_the_newest_events_within_the_bounds_of_the_last(kept: Kept) -> None:
    kept.append(10, events=3)
    assert (kept.log.oldest, kept.log.newest) == (8, 10)
    assert kept.offsets(0) == kept.offsets(7) == [8, 9, 10]
    assert kept.offsets(0, 7) == []
    kept.append(1, events=2)
    assert kept.offsets(0) == [10, 11]
    kept.append(2, events=10)
    assert kept.offsets(0) == [10, 11, 12, 13]
    kept.append(1, events=0)
    assert (kept.log.oldest, kept.log.newest, kept.offsets(0)) == (15, 14, []), "offsets are counted all the same"


def test_log_events_expire_at_their_age_if_that_is_limited(kept: Kept, scheduler: ManualScheduler) -> None:
    kept.append(2, seconds=10)
    scheduler.pass_time(6)
    kept.append(1, seconds=10)
    scheduler.pass_time(3.9)
    assert (kept.log.oldest, kept.offsets(0)) == (1, [1, 2, 3])
    scheduler.pass_time(0.2)
    assert (kept.log.oldest, kept.offsets(0)) == (3, [3])
    scheduler.pass_time(10)
    assert (kept.log.oldest, kept.log.newest, kept.offsets(0)) == (4, 3, [])
    kept.append(2, seconds=0)
    scheduler.pass_time(10**6)
    assert kept.offsets(0) == [4, 5]


@pytest.mark.parametrize("events", [1, 63, 64, 65, 500])
def test_log_stays_small_after_many_events(kept: Kept, events: int) -> None:
    kept.append(5000, events=events)
    assert kept.offsets(0) == list(range(5001 - events, 5001))
    assert len(kept.log._frames) <= 2 * events + 128


def test_ids_are_short_ascii_of_different_epochs_and_parsed_back() -> None:
    epochs = [new_epoch() for _ in range(1000)]
    assert len(set(epochs)) == 1000
    ids = ",".join(str(Position(epoch, 999_999_999)) for epoch in epochs[:8])
    assert len(ids) <= 128
    assert read_ids(ids, 8) == [Position(epoch, 999_999_999) for epoch in epochs[:8]]
    assert re.fullmatch("[0-9A-Za-z,-]+", ids), "safe for a CORS header: fetch.spec.whatwg.org, 2.2.2"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("abcde-1", 2),
        ("abcde-1,abcde-2", 1),
        ("abcde-1,", 2),
        ("abcde-1,", 1),
        ("", 1),
        ("abcde", 1),
        ("abcde-", 1),
        ("-1", 1),
        ("abcde--1", 1),
        ("abcde-01", 1),
        ("abcde-1.5", 1),
        ("abcde-1\n", 1),
        (" abcde-1", 1),
        ("abcde-\N{ARABIC-INDIC DIGIT FIVE}", 1),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}-1", 1),
        ("abcde-" + "9" * 19, 1),
        ("a" * 10_000 + "-1", 1),
        (",".join(["abcde-1"] * 1000), 1000),
        ("\0", 1),
    ],
)
def test_ids_that_are_invalid_are_parsed_to_none(text: str, count: int) -> None:
    assert read_ids(text, count) is None


@pytest.mark.parametrize(
    ("when", "offset", "is_known"), [(0.5, 2, False), (3.0, 2, False), (3.5, 3, True), (5.0, 4, True), (9.0, 5, True)]
)
def test_log_before_finds_the_newest_event_before_a_time_if_kept(when: float, offset: int, is_known: bool) -> None:
    log = Log("epoch", 0, lambda: 5.0)
    with log.guard:
        for at in range(1, 6):
            log.keep(Frame(b"data: x\n\n", "message"), Bounds(3, 0.0), float(at))
    assert log.before(when) == (offset, is_known)


def test_log_before_its_first_event_is_its_first_offset() -> None:
    assert Log("epoch", 41, lambda: 5.0).oldest == 42
    log = Log("epoch", 0, lambda: 5.0)
    assert log.before(1.0) == (0, True)
    with log.guard:
        log.keep(Frame(b"data: x\n\n", "message"), Bounds(3, 0.0), 2.0)
    assert log.before(1.0) == (0, True)


def test_log_end_begins_a_new_epoch_for_what_follows_it(kept: Kept) -> None:
    kept.append(2)
    kept.end()
    log = kept.log
    assert (log.epoch, log.newest, log.first, log.is_complete) == ("epoch", 3, 1, True)
    kept.append(1)
    assert (log.newest, log.oldest, log.first, log.is_complete) == (4, 1, 4, False)
    assert log.epoch != "epoch"
    assert [*log.former] == [Position("epoch", 3)]
    assert kept.offsets(0) == [1, 2, 3, 4], "who is behind the end gets the rest"
    assert [log.position(offset).epoch for offset in (1, 3, 4, 5)] == ["epoch", "epoch", log.epoch, log.epoch]
    second = log.epoch
    kept.end()
    assert (log.newest, log.first, log.is_complete) == (5, 4, True)
    with log.guard:
        log.begin_anew()
        log.begin_anew()
    assert (log.newest, log.first, log.is_complete) == (5, 6, False)
    assert [*log.former] == [Position(second, 5), Position("epoch", 3)]
    assert log.find(Position(log.epoch, 5)) == log.find(Position(second, 5)) == 5
    assert log.find(Position("epoch", 4)) is None


@pytest.mark.parametrize("events", [0, 1, 2])
def test_log_keeps_the_newest_end_beside_its_events(kept: Kept, events: int) -> None:
    kept.append(3, events)
    kept.end(events)
    assert kept.offsets(0) == list(range(4 - events, 5))
    kept.append(1, events)
    assert kept.offsets(0) == list(range(6 - events, 6))
    assert kept.log.first == max(kept.log.oldest, 5)


def test_log_complete_channel_that_keeps_nothing_still_ends(kept: Kept, scheduler: ManualScheduler) -> None:
    """Else a client that was slow would wait for what will never come."""
    kept.append(3, seconds=1.0)
    kept.end(seconds=1.0)
    scheduler.now += 2
    assert kept.log.first > kept.log.newest
    assert [kept.offsets(after) for after in range(5)] == [[4], [4], [4], [4], []]
    assert kept.offsets(0, 3) == []


def test_log_knows_where_the_last_eight_epochs_ended(kept: Kept) -> None:
    epochs = []
    for _ in range(12):
        kept.append(1)
        epochs.append(kept.log.epoch)
        kept.end()
    kept.append(1)
    found = [kept.log.find(Position(epoch, 2 * number + 1)) for number, epoch in enumerate(epochs)]
    assert found == [None] * 4 + [9, 11, 13, 15, 17, 19, 21, 23]


def test_log_that_begins_complete_has_nothing_for_who_comes() -> None:
    log = Log("two", 5, lambda: 5.0, former=[Position("one", 3)], first=4, is_complete=True)
    assert (log.first, log.oldest, log.newest) == (6, 6, 5)
    with log.guard:
        log.begin_anew()
        log.append(Frame(b"data: x\n\n", "message"), Bounds(3, 0.0))
    assert (log.first, log.newest, log.is_complete) == (6, 6, False)
