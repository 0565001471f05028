"""A real PostgreSQL, on a free port and in a temporary folder."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import psycopg

from tests.support.programs import program
from tests.support.waiting import PATIENCE, until

#: PostgreSQL refuses to run as root. Debian's package makes the first of these users; each system has the other.
_USERS = ("postgres", "nobody")

#: What only a machine that loses power needs is left out. What was committed survives ``kill``.
_SETTINGS = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB")


class PostgresqlServer:
    """A PostgreSQL that runs in a ``with`` block, and may be paused, killed and started again on the same port.

    Tests can share it: each takes a new database.
    """

    def __init__(self, *settings: str, primary: PostgresqlServer | None = None) -> None:
        """Make it with these settings, each as in ``max_connections=20``.

        :param primary: it is a standby of this one, and has the same databases.
        """
        self._settings = settings
        self._primary = primary
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        # Bound for as long as this lives: while PostgreSQL is down, no other process gets its port.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]

    def __enter__(self) -> PostgresqlServer:
        try:
            self._make_data()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._held.close()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, with a user who may do everything and has no password."""
        return f"postgresql://tests@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def run(self, statement: str, url: str = "") -> list[Any]:
        """Run a statement, without a transaction; return the rows.

        :param url: of a database other than ``postgres``.
        """
        with psycopg.connect(url or self.url(), autocommit=True, connect_timeout=int(PATIENCE)) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        options = [*_SETTINGS, f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        command = [self._program("postgres"), "-D", str(self._data)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *(word for each in (*options, *self._settings) for word in ("-c", each))],
                **self._as_its_user(),
                stdout=log,
                stderr=log,
            )
        until(self._answers, "PostgreSQL to answer")

    def renew(self) -> None:
        """Be as new for the next test, if the last one killed or paused it. What it has set it must reset itself."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
        if self._process is None or self._process.poll() is not None:
            self._process = None
            self.start()

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("SELECT pg_promote(wait => false)")  # a statement that waits could hold up what it waits for
        until(lambda: not self.run("SELECT pg_is_in_recovery()")[0][0], "the standby to be the primary")

    def terminate_all(self, url: str = "") -> None:
        """Have PostgreSQL close the connections of a database, but for the one that asks."""
        self.run(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            url,
        )

    def cut_listeners(self) -> None:
        """Cut the connections of all processes; there are none while it starts, or recovers."""
        with suppress(psycopg.OperationalError):
            self.terminate_all()

    def crash(self) -> None:
        """Kill the process of one connection: PostgreSQL then ends all others, and recovers as after a crash."""
        assert self._process is not None
        found = [
            each
            for each in psutil.Process(self._process.pid).children()
            if "tests postgres" in " ".join(each.cmdline())
        ]
        for process in found[:1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def signal(self, number: int) -> None:
        """Send a signal to each of its processes: there is one for each connection."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        first.send_signal(number)  # a first process that is stopped starts no others
        for process in first.children():
            with suppress(psutil.NoSuchProcess):  # of a connection that has just ended
                process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would: its next start recovers. Unlike SIGKILL, this leaves no shared memory behind."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                self.signal(signal.SIGCONT)  # it may be paused
            self._process.wait(PATIENCE)
            self._process = None

    @property
    def _data(self) -> Path:
        return Path(self._folder.name) / "data"

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "log"

    def _make_data(self) -> None:
        user = self._as_its_user()
        if "user" in user:
            os.chown(self._folder.name, user["user"], user["group"])
        made = subprocess.run(self._how_to_make_data(), **user, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr

    def _how_to_make_data(self) -> list[str]:
        if self._primary is not None:
            copy = (
                f"--pgdata={self._data} --port={self._primary.port} --write-recovery-conf --checkpoint=fast --no-sync"
            )
            return [self._program("pg_basebackup"), "--host=127.0.0.1", "--username=tests", *copy.split()]
        options = "--username=tests --auth=trust --encoding=UTF8 --locale=C --wal-segsize=1 --no-sync --no-instructions"
        return [self._program("initdb"), f"--pgdata={self._data}", *options.split()]

    def _as_its_user(self) -> dict[str, Any]:
        """Return arguments with which a process runs in its folder, and not as root."""
        if os.getuid() != 0:
            return {"cwd": self._folder.name}
        known = {each.pw_name: each for each in pwd.getpwall()}
        user = next(known[name] for name in _USERS if name in known)
        return {"cwd": self._folder.name, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    @staticmethod
    def _program(name: str) -> str:
        """Return the path of a program that is not in PATH. All are of the same version: they lie in one folder."""
        return str(Path(program("postgres", "postgresql")).resolve().with_name(name))

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"PostgreSQL did not start: {self.log}")
        try:
            return bool(self.run("SELECT 1"))
        except psycopg.OperationalError:
            return False
