"""A real pgbouncer, on a free port and in a temporary folder."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_topologies import free_port
from tests.support.programs import program
from tests.support.waiting import PATIENCE, until

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=tests

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 4
"""


@contextmanager
def pgbouncer(server: PostgresqlServer, mode: str = "transaction") -> Iterator[int]:
    """Start a pgbouncer in front of this PostgreSQL; yield its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        settings, log = Path(folder, "pgbouncer.ini"), Path(folder, "log")
        settings.write_text(_SETTINGS.format(server=server.port, port=port, mode=mode))
        os.chmod(folder, 0o755)  # it refuses to run as root
        command = [program("pgbouncer", "pgbouncer"), "--quiet", str(settings)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, **_as_nobody())
        try:
            until(lambda: _answers(port, process, log), "pgbouncer to answer")
            yield port
        finally:
            process.kill()
            process.wait(PATIENCE)


def _as_nobody() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _answers(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
