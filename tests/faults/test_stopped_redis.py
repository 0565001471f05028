"""A Redis that hangs amid a broadcast: streams stay open, and no event is lost."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from tests.faults.process_servers import await_heartbeats
from tests.faults.swarm import Habits, Size, check_all, swarming_over_redis
from tests.support.client import answer, connected, get
from tests.support.waiting import until


def test_stopped_redis_loses_no_event_and_streams_stay_open(seed: int) -> None:
    """A worker is refused to publish; a publisher repeats each event until it is confirmed."""
    size = Size(60, 400, threads=1, seconds=2)
    habits = Habits(seed, slow=0)
    with swarming_over_redis("gevent", habits, workers=2, SSE_HEARTBEAT=0.2) as shared, ExitStack() as stack:
        swarm, server = shared.swarm, shared.server
        swarm.add(size.clients)
        swarm.run_to_position()
        idle = [stack.enter_context(connected(server, "/events/idle")) for _ in range(8)]
        with shared.publishers(size) as publishers:
            swarm.run(lambda: publishers.confirmed > 30, "the first events")
            shared.redis.signal(signal.SIGSTOP)
            try:
                status, text = answer(server, "POST", "/publish/idle", "1", {"Content-Type": "application/json"})
                assert (status, b"may have been published" in text) == (503, True), text
                until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "degraded", "the worker to know")
                for client in idle:
                    await_heartbeats(client)
                until(lambda: publishers.doubtful, "a publisher to get an error")
                assert not publishers.are_done(), "it was amid its work"
            finally:
                shared.redis.signal(signal.SIGCONT)
            swarm.run(publishers.are_done, "the publishers")
            swarm.run_to(publishers.publish_over())
        until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "ok", "Redis to be back")
        check_all(swarm, publishers)
        assert {client.connections for client in swarm.clients} == {1}, "no stream was cut"
