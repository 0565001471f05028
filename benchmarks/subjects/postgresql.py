"""A PostgreSQL server beside a subject, on the same core, whose CPU time is told apart.

It does not wait for the disk.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from ..processes import BenchmarkFailed, Program, family_seconds
from .server import Server, Subject, free_port

_SETTINGS = ("fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", "unix_socket_directories=")

#: PostgreSQL refuses to run as root. Debian's package makes the first of these users; each system has the other.
_USERS = ("postgres", "nobody")


class WithPostgresql(Subject):
    def missing(self) -> str | None:
        return super().missing() or (
            None if postgresql_program("postgres") else "not installed: postgres (Debian: postgresql)"
        )

    def server(self) -> ServerWithPostgresql:
        return ServerWithPostgresql()

    def prepare(self, server: Server) -> None:
        assert isinstance(server, ServerWithPostgresql)
        server.start_postgresql()


class ServerWithPostgresql(Server):
    def __init__(self) -> None:
        super().__init__()
        self._broker_port = free_port()
        self.broker_url = f"postgresql://bench@127.0.0.1:{self._broker_port}/postgres"

    def start_postgresql(self) -> None:
        """Make a data folder, and start it; who connects meanwhile has to try again."""
        user = _user()
        data = self.folder / "postgresql"
        data.mkdir()
        if user is not None:
            for folder in (self.folder, data):
                shutil.chown(folder, user)
        initdb = [
            str(postgresql_program("initdb")),
            f"--pgdata={data}",
            "--username=bench",
            "--auth=trust",
            "--encoding=UTF8",
        ]
        made = subprocess.run(
            [*initdb, "--locale=C", "--no-sync"], cwd=data, user=user, capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise BenchmarkFailed(f"initdb: {made.stderr}")
        command = [str(postgresql_program("postgres")), "-D", str(data)]
        for setting in (*_SETTINGS, f"port={self._broker_port}"):
            command += ["-c", setting]
        program = Program(command, self.folder, cwd=data, user=user, stop_signal=signal.SIGQUIT)
        self.helpers["postgresql"] = self.add(program).pid
        self._await_postgresql(program)

    def broker_cpu(self) -> float:
        """Of all of its processes: there is one for each connection."""
        return family_seconds(self.helpers["postgresql"])

    def _await_postgresql(self, program: Program) -> None:
        ready = [
            str(postgresql_program("pg_isready")),
            "--host=127.0.0.1",
            f"--port={self._broker_port}",
            "--timeout=1",
        ]
        for _ in range(600):
            if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
                return
            if not program.running:
                break
        raise BenchmarkFailed(f"PostgreSQL did not start: {program.log}")


def postgresql_program(name: str) -> Path | None:
    """Debian has its programs in a folder for each version, which is in no PATH: the newest."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    found = shutil.which(name, path=os.pathsep.join(map(str, reversed(folders)))) or shutil.which(name)
    return Path(found) if found else None


def _user() -> str | None:
    """As whom it runs; ``None``: as the user of this process."""
    if os.getuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in _USERS if name in known)
