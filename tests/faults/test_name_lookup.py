"""Name lookups that hang: only publishers wait for them."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.process_servers import await_heartbeats, config, serving, worker_of
from tests.support.client import answer, connected, get, post
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until


class NameServer:
    """A DNS server (RFC 1035) that answers every name with this machine, or not at all while it is :attr:`silent`."""

    def __init__(self) -> None:
        self.silent = False
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.1)
        dice = random.SystemRandom()  # not of the test's seed: others run beside it
        self.address = f"127.{dice.randint(1, 254)}.{dice.randint(1, 254)}.{dice.randint(2, 254)}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> NameServer:
        try:
            self._socket.bind((self.address, 53))
        except OSError as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                pytest.skip("only root may serve names")
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                question, client = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self.asked += 1
            if not self.silent:
                self._socket.sendto(self._answer(question), client)

    @staticmethod
    def _answer(question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5
        is_ipv4 = question[end - 4 : end - 2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("127.0.0.1") if is_ipv4 else b""
        counts = struct.pack(">4H", 1, is_ipv4, 0, 0)
        return question[:2] + b"\x81\x80" + counts + question[12:end] + answer


def server_with_names(kind: str, names: NameServer, folder: Path, **options: Any) -> Server:
    """Return a server that looks names up with this DNS server: it has a name space with another resolv.conf."""
    configuration = folder / "resolv.conf"
    configuration.write_text(f"nameserver {names.address}\noptions timeout:1 attempts:2\n")
    command = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", command, str(configuration)]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounts are not allowed here")
    return serving(kind, before=inside, **options)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_name_lookup_that_hangs_blocks_publishers_alone(kind: str, tmp_path: Path) -> None:
    """They wait no longer than the lookup takes, of which there are few at once; streams go on."""
    kept = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    with kept as redis, NameServer() as names, ThreadPoolExecutor(20) as pool, ExitStack() as stack:
        settings = config(SSE_BROKER_URL=f"redis://redis.test:{redis.port}", SSE_HEARTBEAT=0.1, SSE_PUBLISH_SECONDS=0.5)
        server = stack.enter_context(server_with_names(kind, names, tmp_path, env=settings))
        client = stack.enter_context(connected(server, "/events/a"))
        post(server, "/publish/a", "before")
        assert client.texts(1) == ["before"]
        names.silent = True
        asked, threads = names.asked, worker_of(server).num_threads()
        redis.kill()
        redis.start()
        until(lambda: names.asked > asked, "the first lookup that hangs")
        attempts = [pool.submit(answer, server, "POST", "/publish/a", "1", JSON) for _ in range(20)]
        await_heartbeats(client, 5)
        get(server, "/time")
        assert not all(attempt.done() for attempt in attempts), "all this while lookups hang"
        assert {attempt.result()[0] for attempt in attempts} == {500}
        more = worker_of(server).num_threads() - threads
        assert "BrokerUnavailable" in server.log
        if kind == "gevent":
            assert more <= 10, "as many threads look names up at once"
        names.silent = False
        until(lambda: get(server, "/stats")["broker"]["state"] == "ok", "Redis to be found")
        post(server, "/publish/a", "after")
        assert client.texts(1) == ["after"]


JSON = {"Content-Type": "application/json"}
