"""Publishers on threads of both workers while channels move: no event is lost, none comes twice, and ids rise."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from flask_sse_emitters.brokers import Bounds, Position
from flask_sse_emitters.brokers.event_ids import read_ids
from flask_sse_emitters.runtime.scheduler import SCHEDULER
from tests.support.brokers.broker_calls import RecordingListener, frame, in_threads, listening, publish
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.two_workers import TwoWorkers, read, texts

CHANNELS = [f"channel:{number}" for number in range(5)]
PUBLISHERS = 3
KEPT = Bounds(100_000, 0.0)


@pytest.fixture(autouse=True)
def answers_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with much else to do may not answer in the two seconds after which a publisher is told of a failure."""
    monkeypatch.setattr("flask_sse_emitters.brokers.memory.moves.handover.ANSWER_SECONDS", PATIENCE)


class Publisher:
    """Publishes numbered events to all channels, on a thread of its own, until the move is over and a bit longer.

    :ivar ids: of its events, by channel.
    """

    def __init__(self, workers: TwoWorkers, broker: str, name: str) -> None:
        self.workers, self.broker, self.name = workers, getattr(workers, broker), name
        self.ids: dict[str, list[str]] = {channel: [] for channel in CHANNELS}

    def __call__(self) -> None:
        left = 10
        while left:
            left -= self.workers.is_given
            for channel in CHANNELS:
                number = len(self.ids[channel])
                got = self.broker.publish(channel, frame(f"{self.name} {number}"), KEPT, key=f"{self.name}{number}")
                self.ids[channel].append(got.id)


@pytest.mark.parametrize("waits", [True, False])
def test_memory_publishers_lose_nothing_while_channels_move(waits: bool, seed: int) -> None:
    """Whether or not the worker that stays knows beforehand that channels come."""
    chance = random.Random(seed)
    workers = TwoWorkers(SCHEDULER)
    for channel in CHANNELS:
        publish(workers.stops, channel, *["before"] * chance.randrange(500), bounds=KEPT)
    if waits:
        workers.stays.inheritance.expect(30.0)
    stops = [Publisher(workers, "stops", f"stops{number}") for number in range(PUBLISHERS)]
    stays = [Publisher(workers, "stays", f"stays{number}") for number in range(PUBLISHERS)]

    def move() -> None:
        until(lambda: len(stops[0].ids[CHANNELS[0]]) > chance.randrange(1, 100), "some events")
        SCHEDULER.call_soon(workers.give)
        until(lambda: workers.is_given, "the move")

    in_threads([*stops, *stays, move])
    for channel in CHANNELS:
        assert_all_there_once(workers, channel, [*stops, *stays])
    if waits:
        assert all(not workers.stays._records[channel].log.aliases for channel in CHANNELS), "ids went on as they were"


def test_memory_listeners_get_what_is_published_while_channels_move(seed: int) -> None:
    """Those of the worker that stops, until they move; and those of the one that stays, from where they begin."""
    chance = random.Random(seed)
    workers = TwoWorkers(SCHEDULER)
    workers.stays.inheritance.expect(30.0)
    listeners = {channel: listening(workers.stops, channel) for channel in CHANNELS}
    later = {channel: RecordingListener() for channel in CHANNELS}
    for channel, listener in later.items():
        workers.stays.subscribe(channel, listener)
    stops = [Publisher(workers, "stops", f"stops{number}") for number in range(PUBLISHERS)]

    def move() -> None:
        until(lambda: len(stops[0].ids[CHANNELS[0]]) > chance.randrange(1, 100), "some events")
        SCHEDULER.call_soon(workers.give)

    in_threads([*stops, move])
    for channel, listener in listeners.items():
        total = sum(len(each.ids[channel]) for each in stops)
        until(lambda: len(listener.frames) == total, "all events")  # noqa: B023 - called at once
        assert [each.offset for each in listener.frames] == list(range(1, total + 1))
        newest = later[channel].newest
        until(lambda: len(later[channel].frames) == total - newest, "those since")  # noqa: B023
        assert listener.texts[newest:] == later[channel].texts


def assert_all_there_once(workers: TwoWorkers, channel: str, publishers: list[Publisher]) -> None:
    kept = read(workers.stays, channel)
    assert kept is not None
    assert [each.offset for each in kept] == list(range(1, len(kept) + 1))
    found = [text for text in texts(kept) or () if text != "before"]
    assert sorted(found) == sorted(
        f"{each.name} {number}" for each in publishers for number in range(len(each.ids[channel]))
    )
    log = workers.stays._records[channel].log
    for each in publishers:
        own = [text for text in found if text.startswith(f"{each.name} ")]
        assert own == [f"{each.name} {number}" for number in range(len(own))], "in the order in which they were sent"
        offsets = [log.find(position(text)) for text in each.ids[channel]]
        assert all(first is not None and second is not None and first < second for first, second in pairwise(offsets))
        bodies = [kept[(offset or 0) - 1].payload.split(b"data: ")[1].strip().decode() for offset in offsets]
        assert bodies == own, "each id is that of its event"


def position(event_id: str) -> Position:
    found = read_ids(event_id, 1)
    assert found is not None
    return found[0]
