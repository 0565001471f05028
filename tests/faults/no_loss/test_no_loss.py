"""No event is lost between two connections. See ``swarm_client.py`` for the checks.

``SEED`` repeats the choices of a failure, ``SWARM_SCALE=4`` takes four times as many clients and events.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.apps.faults.swarm import CHANNELS
from tests.faults.no_loss.swarm import Size, Swarm, swarming
from tests.faults.no_loss.swarm_client import Habits, epoch_of, offset_of
from tests.support.board import Board, gap_of, texts
from tests.support.brokers.publishers import lines_of
from tests.support.client import get, post
from tests.support.servers import Server

#: One at a time: each keeps two cores busy.
pytestmark = pytest.mark.xdist_group("swarm")

SCALE = int(os.environ.get("SWARM_SCALE", 1))


#: Of clients and events.
SIZES = {
    "gevent": (125, 5_000),
    "gevent_off": (50, 1_600),
    "gthread": (60, 1_600),
    "gthread_off": (30, 800),
    "sync": (60, 1_600),
}


def publish_to(server: Server, swarm: Swarm, size: Size) -> None:
    """Publish while clients reconnect; return once each has read its channels to the end."""
    swarm.begin(size)
    seed = swarm.habits.seed
    post(server, f"/publish?threads={size.threads}&events={size.events}&seconds={size.seconds}&seed={seed}")
    swarm.run_to_position()  # who comes after the end gets no event that says so
    post(server, "/over")
    swarm.run_to_end()


def published_by(server: Server) -> dict[str, dict[bytes, bytes]]:
    """Return the event of each id of each channel, as the publishing threads recorded it."""
    found: dict[str, dict[bytes, bytes]] = {channel: {} for channel in CHANNELS}
    for thread in get(server, "/published"):
        newest = dict.fromkeys(CHANNELS, 0)
        for channel, event_id, name, data in thread:
            offset = offset_of(event_id.encode())
            assert offset > newest[channel], "a thread's later event has a lower id"
            newest[channel] = offset
            assert event_id.encode() not in found[channel], f"{event_id} stands for two events of {channel}"
            found[channel][event_id.encode()] = lines_of(name, data)
    for events in found.values():
        assert sorted(map(offset_of, events)) == list(range(1, len(events) + 1))
    return found


@pytest.mark.parametrize("kind", SIZES)
def test_clients_that_reconnect_get_every_event_once_in_order(kind: str, seed: int) -> None:
    clients, events = SIZES[kind]
    size = Size(clients * SCALE, events * SCALE, seconds=2 + SCALE)
    with swarming(kind, Habits(seed), SSE_TIMEOUT=size.seconds / 2) as (server, swarm):
        publish_to(server, swarm, size)
        published = published_by(server)
        swarm.compare(published)
        assert sum(map(len, published.values())) == size.events + len(CHANNELS)
        for client in swarm.clients:
            assert client.ids == [max(published[channel], key=offset_of) for channel in client.channels]
            assert client.events == sum(map(offset_of, client.ids)) - sum(map(offset_of, client.first))
        assert sum(map(offset_of, swarm.clients[0].first)) == 0, (
            "a client connected before the first event has them all"
        )
        for way in ("reset", "half-close", "age"):
            assert swarm.cuts[way] > size.clients / 4


@pytest.mark.parametrize(
    ("kind", "size"), [("gevent", Size(80, 3_000, seconds=3)), ("gthread", Size(40, 1_200, seconds=3))]
)
def test_each_hole_is_announced_by_one_gap_and_no_other_gap_is_sent(kind: str, size: Size, seed: int) -> None:
    habits = Habits(seed, slow=0.5, pairs=0.7, away=0.4, history=20)
    with swarming(kind, habits, SSE_TIMEOUT=size.seconds / 2) as (server, swarm):
        publish_to(server, swarm, size)
        swarm.compare(published_by(server))
        assert sum(hole.on_return for client in swarm.clients for hole in client.holes) > 10


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_reload_delivers_all_old_events_then_one_gap_from_new_worker(kind: str, seed: int) -> None:
    with swarming(kind, Habits(seed, history=10**6), SSE_TIMEOUT=0) as (server, swarm):
        swarm.add(40)
        swarm.run_to_position()
        published, newest = _publish_over_a_reload(server, swarm)
        swarm.run_to_end()
        swarm.compare(published)
        for client in swarm.clients:
            [hole] = client.holes
            assert list(hole.before) == [newest[channel] for channel in client.channels]
            assert [*map(epoch_of, hole.after)] == [*map(epoch_of, client.ids)]
            assert not {*map(epoch_of, hole.after)} & {*map(epoch_of, newest.values())}
            assert set(map(offset_of, hole.after)) == {0}


def _publish_over_a_reload(server: Server, swarm: Swarm) -> tuple[dict[str, dict[bytes, bytes]], dict[str, bytes]]:
    """Publish on four threads until the new worker has had a hundred events from each.

    :return: the event of each id, and the old worker's last id by channel.
    """
    published: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
    newest: dict[str, bytes] = {}
    lock = threading.Lock()

    def note(channel: str, text: str, event: str = "") -> bytes:
        path = f"/publish/{channel}?event={event}" if event else f"/publish/{channel}"
        event_id: bytes = post(server, path, text)["id"].encode()
        with lock:
            assert event_id not in published[channel]
            published[channel][event_id] = lines_of(event, text)
            if is_old(channel, event_id):
                newest[channel] = max(newest.get(channel, event_id), event_id, key=offset_of)
        return event_id

    def is_old(channel: str, event_id: bytes) -> bool:
        return epoch_of(event_id) == epoch_of(newest.get(channel, event_id))

    def run(number: int) -> None:
        posted = {True: 0, False: 0}
        while posted[False] < 100:
            channel = CHANNELS[sum(posted.values()) % 5]
            was_old = is_old(channel, note(channel, f"{number} {posted}"))
            posted[was_old] += 1
            if number == 0 and was_old and posted[True] == 100:
                server.signal(signal.SIGHUP)

    for channel in CHANNELS:
        note(channel, "first")
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run, number) for number in range(4)]
        swarm.run(lambda: all(each.done() for each in runs), "the publishers")
    for each in runs:
        each.result()
    for channel in CHANNELS:
        assert not is_old(channel, note(channel, "", "over"))
    return published, newest


def test_hole_that_grows_before_first_write_is_one_gap() -> None:
    board = Board(SSE_HISTORY=5)
    epoch, _ = board.publish("a", *range(1, 11))[0].split("-")
    with board.open("a", last=f"{epoch}-0") as stream:
        board.publish("a", 11)
        events = stream.ready()
    gap_of(events)
    assert texts(events[1:]) == ["6", "7", "8", "9", "10", "11"]


def test_gap_of_one_channel_names_position_in_live_channel() -> None:
    board = Board(SSE_HISTORY=5)
    [a, b] = (board.publish(channel, 1)[0].split("-")[0] for channel in ("a", "b"))
    with board.open("a", "b", last=f"{a}-0,{b}-1") as stream:
        board.publish("b", 2)
        board.publish("a", *range(2, 10))
        events = stream.ready()
    [gap] = [json.loads(event.data) for event in events if event.event == "gap"]
    assert (gap["requested"], gap["oldest"]) == (f"{a}-1,{b}-2", f"{a}-5,{b}-3")
