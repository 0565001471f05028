"""No event is lost between workers that share a Redis, while all of them fail. See ``swarm.py`` for the checks.

``SEED`` repeats the choices of a failure, and ``SWARM_SCALE=3`` makes each swarm that much larger.
``python -m tests.faults.swarm --redis`` does the same in any size.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.apps.swarm import CHANNELS
from tests.faults.chaos import Troubles
from tests.faults.swarm import (
    Client,
    Habits,
    Shared,
    Size,
    Swarm,
    check_all,
    epoch_of,
    offset_of,
    publish_during_outages,
    swarming_over_redis,
)
from tests.support.publishers import Publishers

#: One at a time: each keeps two cores busy.
pytestmark = pytest.mark.xdist_group("swarm")

#: A small swarm shows the same: each worker that is started costs more than its clients.
SCALE, WORKERS = int(os.environ.get("SWARM_SCALE", 1)), 2


def sized(clients: int, events: int, seconds: float) -> Size:
    return Size(clients * SCALE, events * SCALE, seconds=seconds * SCALE)


def troubled() -> Troubles:
    return Troubles(rounds=SCALE, redis_every=0.5, workers_every=0.8)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("gevent", sized(60, 1_000, 2.5)),
        ("gevent_off", sized(40, 600, 2)),
        ("gthread", sized(20, 400, 2)),
    ],
    ids=["gevent", "gevent_off", "gthread"],
)
def test_clients_get_every_event_once_during_redis_and_worker_outages(kind: str, size: Size, seed: int) -> None:
    with swarming_over_redis(kind, Habits(seed), workers=WORKERS, SSE_TIMEOUT=size.seconds / 2) as shared:
        publishers, _ = publish_during_outages(shared, size, troubled())
        check_all(shared.swarm, publishers)
        assert publishers.confirmed >= size.events + len(CHANNELS)
        for client in shared.swarm.clients[: size.clients * 9 // 10]:
            assert {*map(offset_of, client.first)} == {0}, "a client connected before the first event has them all"


def test_each_hole_is_one_gap_during_redis_and_worker_outages(seed: int) -> None:
    habits = Habits(seed, slow=0.5, pairs=0.7, away=0.4, history=20)
    size = sized(50, 1_000, 2.5)
    with swarming_over_redis("gevent", habits, workers=WORKERS, SSE_TIMEOUT=size.seconds / 2) as shared:
        publishers, _ = publish_during_outages(shared, size, troubled())
        check_all(shared.swarm, publishers)
        assert publishers.confirmed >= size.events + len(CHANNELS)
        holes = [hole for client in shared.swarm.clients for hole in client.holes]
        assert sum(hole.on_return for hole in holes) > 10


def flush(shared: Shared) -> None:
    assert shared.redis.run("FLUSHALL") == b"+OK\r\n"


def kill(shared: Shared) -> None:
    shared.redis.kill()
    shared.redis.start()


@pytest.mark.parametrize("lose", [flush, kill])
def test_redis_data_loss_is_one_gap_for_each_client_and_channel(lose: Callable[[Shared], object], seed: int) -> None:
    """After the gap, each client gets every new event."""
    habits, size = Habits(seed, history=10**6), sized(40, 800, 2)
    with swarming_over_redis("gevent", habits, workers=WORKERS, options=[], SSE_TIMEOUT=size.seconds / 2) as shared:
        swarm = shared.swarm
        swarm.add(size.clients)
        swarm.run_to_position()
        swarm.start_cutting()
        with shared.publishers(size) as publishers:
            swarm.run(lambda: publishers.are_done() or publishers.confirmed > size.events / 2, "half of the events")
            lose(shared)
            swarm.run(publishers.are_done, "the publishers")
            swarm.run_to(publishers.publish_over())
        old = {channel: epoch_of(client.first[0]) for client in swarm.clients for channel in client.channels[:1]}
        _check_new_epochs(publishers, old)
        swarm.compare(_with_doubtful(swarm, publishers, old))
        for client in swarm.clients:
            _check_one_gap_for_each_channel(client)


def _check_new_epochs(publishers: Publishers, old: dict[str, bytes]) -> None:
    for channel, ids in publishers.published.items():
        new = [event_id for event_id in ids if epoch_of(event_id) != old[channel]]
        assert len({*map(epoch_of, new)}) == 1
        assert sorted(map(offset_of, new)) == list(range(1, len(new) + 1))


def _with_doubtful(swarm: Swarm, publishers: Publishers, old: dict[str, bytes]) -> dict[str, dict[bytes, bytes]]:
    """Return what was published, and what clients got though a killed Redis had not confirmed it."""
    return {
        channel: ids
        | {
            event_id: rest
            for event_id, rest in swarm.tapes[channel].items()
            if event_id not in ids and epoch_of(event_id) == old[channel] and rest in publishers.doubtful[channel]
        }
        for channel, ids in publishers.published.items()
    }


def _check_one_gap_for_each_channel(client: Client) -> None:
    """Check one gap for each channel: two channels of a client may be reset one after the other."""
    moves = [(before, after) for hole in client.holes for before, after in hole.ways() if before != after]
    assert len(client.holes) <= len(moves) == len(client.channels)
    for before, after in moves:
        assert epoch_of(before) != epoch_of(after)
        assert offset_of(after) == 0
    had = [*client.ids, *(before for before, _ in moves)]
    assert client.events == sum(map(offset_of, had)) - sum(map(offset_of, client.first))
