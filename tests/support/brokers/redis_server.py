"""A real Redis, on a free port and in a temporary folder."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from tests.support.programs import program
from tests.support.waiting import PATIENCE, until


class RedisServer:
    """A Redis that runs in a ``with`` block, and may be paused, killed and restarted on the same port."""

    def __init__(self, *options: str, settings: str = "") -> None:
        """Make it with these options, and this content of a configuration file, which a sentinel must have."""
        self._folder = tempfile.TemporaryDirectory()
        self._options = options
        self._files = [self.folder / "settings.conf"] if settings else []
        for file in self._files:
            file.write_text(settings)
        self._process: subprocess.Popen[bytes] | None = None
        # Bound for as long as this lives: while Redis is down, no other process gets its port.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._held.close()
        self._folder.cleanup()

    def start(self) -> None:
        command = [program("redis-server", "redis-server"), *map(str, self._files), "--save", ""]
        command += f"--port {self.port} --bind 127.0.0.1 --repl-diskless-sync-delay 0".split()
        command += ["--dir", self._folder.name, *self._options]
        self._settings_when_new = b""
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "Redis to answer")

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return Path(self._folder.name)

    def client(self) -> Any:
        """Return a plain client of it."""
        return redis.Redis(port=self.port, protocol=2)

    def renew(self) -> None:
        """Be as new for the next test: empty, and started again if the last one killed, paused or configured it."""
        if self._process is None or not self._is_as_new():
            self.kill()
            self.start()
            self._settings_when_new = self._current_settings()
        self.run("FLUSHALL")

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)

    def cut_listeners(self) -> None:
        """Cut the connections on which processes listen."""
        self.run("CLIENT KILL TYPE pubsub")

    def run(self, command: str, seconds: float = PATIENCE) -> bytes:
        """Run a command and return the beginning of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(100)

    def _is_as_new(self) -> bool:
        try:
            return self._current_settings() == self._settings_when_new
        except OSError:
            return False

    def _current_settings(self) -> bytes:
        """Return all settings and users, as far as an anonymous client may read them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"CONFIG GET *\r\nACL LIST\r\nQUIT\r\n")
            return b"".join(iter(lambda: connection.recv(65_536), b""))

    def _answers(self) -> bool:
        try:
            return self.run("PING", 1).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
