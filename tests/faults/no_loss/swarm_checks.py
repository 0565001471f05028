"""What must hold of a swarm, and of what was published, once all clients are at the end."""

from __future__ import annotations

from itertools import accumulate

from tests.faults.no_loss.swarm import Swarm
from tests.faults.no_loss.swarm_client import epoch_of, offset_of
from tests.support.brokers.publishers import Publishers


def check_all(swarm: Swarm, publishers: Publishers) -> None:
    """Check that ids count from 1, and that each client has all events since its start, or gaps for the others."""
    swarm.compare(publishers.published)
    for ids in publishers.published.values():
        assert len({*map(epoch_of, ids)}) == 1
        assert sorted(map(offset_of, ids)) == list(range(1, len(ids) + 1))
    begun: dict[bytes, float] = {}  # when the latest publish began, of each event and those before it
    for ids in publishers.published.values():
        ordered = sorted(ids, key=offset_of)
        begun |= zip(ordered, accumulate((publishers.begun[event_id] for event_id in ordered), max), strict=True)
    for client in swarm.clients:
        for event_id in client.first:
            assert begun.get(event_id, 0.0) <= client.was_let_in, f"{client!r} misses {event_id!r} and maybe more"
        missed = sum(offset_of(after) - offset_of(before) for hole in client.holes for before, after in hole.ways())
        assert client.events + missed == sum(map(offset_of, client.ids)) - sum(map(offset_of, client.first))
