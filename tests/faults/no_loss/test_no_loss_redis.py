"""No event is lost between workers that share a Redis, while all of them fail (``chaos.py``).

The clients check what they get (``swarm_client.py``). ``SEED`` repeats the choices of a failure, and ``SWARM_SCALE=3``
makes each swarm that much larger.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.apps.faults.swarm import CHANNELS
from tests.faults.no_loss.chaos import chaos
from tests.faults.no_loss.swarm import Shared, Size, Swarm, swarming_over_redis
from tests.faults.no_loss.swarm_checks import check_all
from tests.faults.no_loss.swarm_client import Client, Habits, epoch_of, offset_of
from tests.faults.processes.process_servers import await_heartbeats
from tests.support.brokers.publishers import Publishers
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import answer, connected, get
from tests.support.waiting import until

#: One at a time: each keeps two cores busy.
pytestmark = pytest.mark.xdist_group("swarm")

#: A small swarm shows the same: each worker that is started costs more than its clients.
SCALE = int(os.environ.get("SWARM_SCALE", 1))


def sized(clients: int, events: int, seconds: float) -> Size:
    return Size(clients * SCALE, events * SCALE, seconds * SCALE)


SIZES = {
    "gevent": sized(60, 1_000, 2.5),
    "gevent_off": sized(40, 600, 2),
    "gthread": sized(40, 600, 2),
    "sync": sized(40, 600, 2),
}


def disturbed(kind: str, habits: Habits, size: Size) -> Swarm:
    """Publish while clients reconnect and workers and Redis fail; return the swarm once all clients are at the end."""
    with swarming_over_redis(kind, habits, SSE_TIMEOUT=size.seconds / 2) as shared:
        swarm = shared.swarm
        swarm.begin(size)
        troubles = chaos(habits.seed, SCALE, shared.broker, shared.server)
        with shared.publishers(size) as publishers, troubles as are_over:
            swarm.run(lambda: all([are_over(), publishers.are_done()]), "the end of troubles, and publishers")
            swarm.run_to(publishers.publish_over())
        check_all(swarm, publishers)
        assert publishers.confirmed >= size.events + len(CHANNELS)
    return swarm


@pytest.mark.parametrize("kind", SIZES)
def test_clients_get_every_event_once_during_redis_and_worker_outages(kind: str, seed: int) -> None:
    size = SIZES[kind]
    swarm = disturbed(kind, Habits(seed), size)
    for client in swarm.clients[: size.clients * 9 // 10]:
        assert {*map(offset_of, client.first)} == {0}, "a client connected before the first event has them all"


def test_each_hole_is_one_gap_during_redis_and_worker_outages(seed: int) -> None:
    habits = Habits(seed, slow=0.5, pairs=0.7, away=0.4, history=20)
    swarm = disturbed("gevent", habits, sized(50, 1_000, 2.5))
    assert sum(hole.on_return for client in swarm.clients for hole in client.holes) > 10


def flush(shared: Shared[RedisServer]) -> None:
    assert shared.broker.run("FLUSHALL") == b"+OK\r\n"


def kill(shared: Shared[RedisServer]) -> None:
    shared.broker.kill()
    shared.broker.start()


@pytest.mark.parametrize("lose", [flush, kill])
def test_redis_data_loss_is_one_gap_for_each_client_and_channel(
    lose: Callable[[Shared[RedisServer]], object], seed: int
) -> None:
    """After the gap, each client gets every new event."""
    habits, size = Habits(seed, history=10**6), sized(40, 800, 2)
    with swarming_over_redis("gevent", habits, options=[], SSE_TIMEOUT=size.seconds / 2) as shared:
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


def test_stopped_redis_loses_no_event_and_streams_stay_open(seed: int) -> None:
    """A worker is refused to publish; a publisher repeats each event until it is confirmed."""
    size = Size(60, 400, seconds=2, threads=1)
    habits = Habits(seed, slow=0)
    with swarming_over_redis("gevent", habits, SSE_HEARTBEAT=0.2) as shared, ExitStack() as stack:
        swarm, server = shared.swarm, shared.server
        swarm.add(size.clients)
        swarm.run_to_position()
        idle = [stack.enter_context(connected(server, "/events/idle")) for _ in range(8)]
        with shared.publishers(size) as publishers:
            swarm.run(lambda: publishers.confirmed > 30, "the first events")
            shared.broker.signal(signal.SIGSTOP)
            try:
                status, text = answer(server, "POST", "/publish/idle", "1", {"Content-Type": "application/json"})
                # Nothing where its connection for that is at something else, and a new one gets no answer.
                assert status == 503, text
                assert b"may have been published" in text or b"nothing was published" in text, text
                until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "degraded", "the worker to know")
                for client in idle:
                    await_heartbeats(client)
                until(lambda: publishers.doubtful, "a publisher to get an error")
                assert not publishers.are_done(), "it was amid its work"
            finally:
                shared.broker.signal(signal.SIGCONT)
            swarm.run(publishers.are_done, "the publishers")
            swarm.run_to(publishers.publish_over())
        until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "ok", "Redis to be back")
        check_all(swarm, publishers)
        assert {client.connections for client in swarm.clients} == {1}, "no stream was cut"
