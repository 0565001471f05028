"""Name lookups that hang: only publishers wait for them."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.processes.process_servers import await_heartbeats, config, serving, worker_of
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import answer, connected, get, post
from tests.support.waiting import PATIENCE, until

JSON = {"Content-Type": "application/json"}
KNOWN = "127.0.0.1 redis.test\n"


def with_files(hosts: Path, resolver: Path) -> list[str]:
    """Return a command that runs another one with these files for looking names up, in a mount namespace."""
    mounts = 'mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounts, str(hosts), str(resolver)]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounts are not allowed here")
    return command


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """The socket of a DNS server that never answers."""
    dice = random.SystemRandom()  # not of the test's seed: others run beside it
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(PATIENCE)
        try:
            server.bind((f"127.{dice.randint(1, 254)}.{dice.randint(1, 254)}.{dice.randint(2, 254)}", 53))
        except PermissionError:
            pytest.skip("only root may serve names")
        yield server


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_name_lookup_that_hangs_blocks_publishers_alone(kind: str, silent: socket.socket, tmp_path: Path) -> None:
    """They wait no longer than the lookup takes, of which there are few at once; streams go on."""
    hosts, resolver = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text(KNOWN)
    resolver.write_text(f"nameserver {silent.getsockname()[0]}\noptions timeout:1 attempts:2\n")
    kept = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    with kept as redis, ThreadPoolExecutor(20) as pool, ExitStack() as stack:
        settings = config(SSE_BROKER_URL=f"redis://redis.test:{redis.port}", SSE_HEARTBEAT=0.1, SSE_PUBLISH_SECONDS=0.5)
        server = stack.enter_context(serving(kind, env=settings, before=with_files(hosts, resolver)))
        client = stack.enter_context(connected(server, "/events/a"))
        post(server, "/publish/a", "before")
        assert client.texts(1) == ["before"]
        threads = worker_of(server).num_threads()
        hosts.write_text("")  # now the name is asked of the silent server
        redis.kill()
        redis.start()
        assert b"redis" in silent.recv(512), "the first lookup that hangs"
        attempts = [pool.submit(answer, server, "POST", "/publish/a", "1", JSON) for _ in range(20)]
        await_heartbeats(client, 5)
        get(server, "/time")
        assert not all(attempt.done() for attempt in attempts), "all this while lookups hang"
        assert {attempt.result()[0] for attempt in attempts} == {500}
        more = worker_of(server).num_threads() - threads
        assert "BrokerUnavailable" in server.log
        if kind == "gevent":
            assert more <= 10, "as many threads look names up at once"
        hosts.write_text(KNOWN)
        until(lambda: get(server, "/stats")["broker"]["state"] == "ok", "Redis to be found")
        post(server, "/publish/a", "after")
        assert client.texts(1) == ["after"]
