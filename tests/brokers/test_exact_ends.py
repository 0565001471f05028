"""The end of a channel is exact: in every process all get what was before it, and nothing that was after it.

Many threads publish to channels, end them, begin them anew, read them, leave and come back, in a random order.
``CHANNELS=1000 pytest -o timeout=3600 tests/brokers/test_exact_ends.py`` changes how many channels there are.
"""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import pairwise

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import EventDecoder
from tests.support.board import Board, closing_board
from tests.support.waiting import PATIENCE

CHANNELS = int(os.environ.get("CHANNELS", 30))
READERS_EACH, PUBLISHERS = 3, 6

#: What each publisher does: together some 12 events and ends for each channel.
EVENTS_EACH = 2 * CHANNELS

#: What a client gets last of a stream that is over for good.
END = Event("", event="~end", id="~end")


@pytest.fixture(params=["memory", "redis", "postgresql"])
def boards(request: pytest.FixtureRequest) -> Iterator[list[Board]]:
    """Apps that share a broker: two but in memory, as two processes do."""
    find: dict[str, Callable[[], list[str]]] = {
        "memory": lambda: ["memory://"],
        "redis": lambda: [request.getfixturevalue("server").url] * 2,
        "postgresql": lambda: [request.getfixturevalue("database")] * 2,
    }
    urls = find[request.param]()
    with ExitStack() as stack:
        yield [stack.enter_context(closing_board(url)) for url in urls]


class Truth:
    """What was published to the channels, as the broker has numbered it."""

    def __init__(self) -> None:
        self.events: defaultdict[str, dict[int, str]] = defaultdict(dict)  # texts by offset
        self.ends: defaultdict[str, set[int]] = defaultdict(set)

    def note(self, channel: str, event_id: str, text: str, *, is_last: bool = False) -> None:
        offset = offset_of(event_id)
        assert self.events[channel].setdefault(offset, text) == text, "two events with one id"
        if is_last:
            self.ends[channel].add(offset + 1)

    def epochs(self, channel: str) -> list[list[str]]:
        """Return the texts of each epoch: what a client gets that begins with the first event of one."""
        bounds = [0, *sorted(self.ends[channel])]
        events = self.events[channel]
        return [[events[offset] for offset in range(first + 1, end)] for first, end in pairwise(bounds)]


def offset_of(event_id: str) -> int:
    return int(event_id.rpartition("-")[2])


def publish_at_random(boards: list[Board], truth: Truth, name: str, chance: random.Random) -> None:
    for number in range(EVENTS_EACH):
        sse, channel = chance.choice(boards).sse, f"c{chance.randrange(CHANNELS)}"
        text = f"{channel} {name}-{number}"
        does = chance.random()
        if does < 0.1:
            truth.note(channel, sse.publish(channel, text, last=True), text, is_last=True)
        elif does < 0.15:
            truth.note(channel, sse.channel(channel).complete(Event(text)), text, is_last=True)
        elif does < 0.2:
            truth.ends[channel].add(offset_of(sse.channel(channel).complete()))
        elif does < 0.4:
            texts = [f"{text}-{each}" for each in range(3)]
            ids = sse.publish_many([(channel, each) for each in texts])
            for event_id, each in zip(ids, texts, strict=True):
                truth.note(channel, event_id, each)
        else:
            truth.note(channel, sse.publish(channel, text), text)


def read_to_the_end(board: Board, channels: str, chance: random.Random) -> tuple[list[str], str]:
    """Read from the first event on, and leave and come back now and then. Return the texts and the last id."""
    got: list[Event] = []
    query = "&".join(f"channel={each}" for each in channels.split())
    while True:
        leaves_after = chance.choice([1, 2, 5, 10**9])
        headers = {"Last-Event-ID": str(got[-1].id)} if got else {}
        response = board.app.test_client().get(f"/events?since=first&{query}", headers=headers)
        if response.status_code == 204:
            assert got, "an event is kept"
            return [event.data for event in got], str(got[-1].id)
        decoder, begun = EventDecoder(), len(got)
        with closing(response):
            for chunk in response.iter_encoded():
                got += decoder.feed(chunk)
                if END in got or len(got) - begun >= leaves_after:
                    break
        if END in got:
            assert got.index(END) == len(got) - 1, "something after the end"
            last = got[-2].id if len(got) > 1 else None
            return [event.data for event in got[:-1]], str(last)


def check_pair(truth: Truth, channels: str, texts: list[str]) -> None:
    """Check what a stream of two channels has got: it goes on until both have ended, and so may get several epochs."""
    for channel in channels.split():
        got = [text for text in texts if text.startswith(f"{channel} ")]
        epochs = truth.epochs(channel)
        bounds = [(first, end) for end in range(len(epochs) + 1) for first in range(end)]
        assert got in [[text for epoch in epochs[first:end] for text in epoch] for first, end in bounds]


def in_threads(calls: Sequence[Callable[[], object]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def await_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_channel_end_is_exact_for_all_readers_of_all_processes(boards: list[Board], seed: int) -> None:
    chance, truth = random.Random(seed), Truth()
    names = [f"c{number}" for number in range(CHANNELS)]
    pairs = [" ".join(chance.sample(names, 2)) for _ in range(CHANNELS)]
    read: list[tuple[str, list[str], str]] = []

    def read_one(board: Board, channel: str, own: random.Random) -> None:
        read.append((channel, *read_to_the_end(board, channel, own)))

    def own() -> random.Random:
        return random.Random(chance.random())

    for name in names:
        truth.note(name, boards[0].sse.publish(name, f"{name} first"), f"{name} first")
    of_readers = [partial(read_one, chance.choice(boards), name, own()) for name in [*names * READERS_EACH, *pairs]]
    of_publishers = [partial(publish_at_random, boards, truth, f"p{each}", own()) for each in range(PUBLISHERS)]
    readers, publishers = in_threads(of_readers), in_threads(of_publishers)
    await_all(publishers)
    for name in names:
        truth.ends[name].add(offset_of(boards[-1].sse.channel(name).complete()))
    await_all(readers)
    assert len(read) == CHANNELS * (READERS_EACH + 1)
    for name, texts, last in read:
        if name in pairs:
            check_pair(truth, name, texts)
            continue
        epochs = truth.epochs(name)
        assert texts in epochs
        for board in boards:
            back = {"~end": 204, last: 204 if texts == epochs[-1] else 200}
            for event_id, expected in back.items():
                with closing(board.get(f"/events/{name}", **{"Last-Event-ID": event_id})) as response:
                    assert response.status_code == expected
