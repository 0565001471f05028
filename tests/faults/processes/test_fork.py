"""Forks of a worker: a child writes to none of its parent's clients, ends none, and keeps none connected.

``FORKS=25 pytest tests/faults/processes/test_fork.py`` changes the number of forks in each way, with four
clients for each.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.faults.processes.process_servers import await_heartbeats, config, serving, worker_of
from tests.support.client import connected, get, new_name, post
from tests.support.servers import Server
from tests.support.waiting import until

FORKS = int(os.environ.get("FORKS", 8))


@pytest.mark.parametrize(("kind", "forks"), [("gevent", FORKS), ("gevent_off", FORKS), ("gthread", FORKS // 4)])
def test_forks_amid_a_broadcast_disturb_no_client(kind: str, forks: int) -> None:
    """A child has its own state, and does not go on with what its parent was doing.

    The last child lives while a client with a full socket reads: under gevent, the child has a copy of its writer.
    """
    settings = config(SSE_MAX_PENDING_BYTES=10**9)
    with ExitStack() as stack:
        server = stack.enter_context(serving(kind, env=settings))
        slow = stack.enter_context(connected(server, "/events/slow"))
        clients = [stack.enter_context(connected(server, "/connect")) for _ in range(4 * FORKS)]
        large = "y" * 900_000
        for _ in range(16):
            post(server, "/publish/slow", large)
        for how, count in (("os.fork", forks), ("multiprocessing", forks), ("subprocess", 1)):
            done = post(server, f"/forks?how={how}&count={count}")
            assert done["ends"] == [0] * count, how
            for client in clients:
                assert client.texts(done["sent"]) == [str(number) for number in range(done["sent"])]
        with ThreadPoolExecutor() as pool:
            forked = pool.submit(post, server, "/forks?how=os.fork&count=1&seconds=0.7&quiet")
            until(worker_of(server).children, "the child")
            assert [len(text) for text in slow.texts(16)] == [len(large)] * 16
            assert forked.result()["ends"] == [0]
        stats = get(server, "/stats")
        assert (stats["clients"], stats["closed"]) == (1 + len(clients), {})
        assert "completion after" not in server.log, "of a stream that a child took for its own"


def test_fork_child_closes_connections_that_the_server_writes_to() -> None:
    """Else an HTTP/1.0 client, which waits for the end of its connection, would wait for that of the child as well."""
    name = new_name()
    with Server("gevent_off", "tests.apps.handoff:app") as server:
        with connected(server, f"/silent/{name}", version=10) as client:
            child = post(server, "/fork")["pid"]
            try:
                post(server, f"/complete/{name}")
                assert b"stream open" in client.rest()
            finally:
                os.kill(child, signal.SIGKILL)


def test_fork_of_a_worker_leaves_emitters_made_before_it_behind() -> None:
    """The early emitter starts the background thread in gunicorn's own process; the worker starts another."""
    settings = {**config(SSE_HEARTBEAT=0.1), "MADE_EARLY": "1"}
    with serving("gevent", env=settings, arguments=["--preload"]) as server, connected(server, "/connect") as client:
        assert post(server, "/send", "x") == {"reached": 1}
        assert client.texts(1) == ["x"]
        await_heartbeats(client)
        assert get(server, "/stats")["clients"] == 1
