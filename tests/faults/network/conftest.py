"""Servers under faults of the network. Tests share them, and clean up by using channels of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.network.network_clients import NetworkServer
from tests.faults.network.network_link import Wire
from tests.faults.network.network_syscalls import Syscalls
from tests.faults.processes.process_servers import config

#: Hand-off under greenlets and threads, and a greenlet or a thread for each client.
KINDS = ["gevent", "gevent_off", "gthread", "gthread_off"]


def grouped(name: str, *kinds: str) -> list[object]:
    """Return parameters whose tests run in the same process, one group for each kind of server."""
    return [pytest.param(kind, marks=pytest.mark.xdist_group(f"{name}-{kind}")) for kind in kinds]


@pytest.fixture(scope="session", params=grouped("network", *KINDS))
def server(request: pytest.FixtureRequest) -> Iterator[NetworkServer]:
    """A server near its clients."""
    with NetworkServer(request.param) as server:
        yield server


@pytest.fixture(scope="session", params=grouped("far", "gevent", "gevent_off"))
def far(request: pytest.FixtureRequest) -> Iterator[tuple[NetworkServer, Wire]]:
    """A server at the far end of a wire, which takes clients for gone after a second or two."""
    env = config(SSE_HEARTBEAT=0.4, SSE_WRITE_SECONDS=1, SSE_MAX_PENDING_BYTES=10**9)
    with Wire() as wire, NetworkServer(request.param, env, listeners=[wire.listener.fileno()]) as server:
        yield server, wire


@pytest.fixture(scope="session", params=grouped("judged", "gevent", "gevent_off"))
def judged(request: pytest.FixtureRequest) -> Iterator[tuple[NetworkServer, Syscalls]]:
    """A worker where the test decides the result of each ``send()``."""
    with Syscalls() as syscalls, NetworkServer(request.param, {"SYSCALLS": syscalls.name}) as server:
        syscalls.await_worker()
        yield server, syscalls
