"""``flask sse`` of ``tests.apps.cli``, in processes of its own."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from click.testing import Result

from flask_sse_emitters import Event
from flask_sse_emitters.testing import decode
from tests.support.board import closing_board
from tests.support.brokers.redis_server import RedisServer
from tests.support.cli import cli_runner
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until

#: The number of the system call that gives a signal to one thread of a process; Python has no function for it.
TGKILL = {"x86_64": 234, "aarch64": 131}[os.uname().machine]

FLASK = [sys.executable, "-m", "flask", "--app", "tests.apps.cli", "sse"]


def invoked(url: str, *arguments: str, data: bytes | None = None, **config: object) -> Result:
    """Run ``flask sse`` in this process, for claims that are not about the process."""
    with closing_board(url, **{"SSE_PUBLISH_SECONDS": PATIENCE, **config}) as board:
        return cli_runner(board.app).invoke(args=["sse", *arguments], input=data)


def environment(url: str, **config: object) -> dict[str, str]:
    config = {"SSE_BROKER_URL": url, "SSE_PUBLISH_SECONDS": PATIENCE, **config}
    return {
        **os.environ,
        "CONFIG": json.dumps(config),
        "PYTHONWARNINGS": "error",
        "PYTHONUNBUFFERED": "",
        "PYTHONUTF8": "1",
    }


def run(*arguments: str, env: dict[str, str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ``flask sse`` to its end."""
    command = [*FLASK, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, input=data, capture_output=True, timeout=PATIENCE, check=False)


class Listening:
    """``flask sse listen``, from ``with`` to its end.

    :param to: a descriptor for its output, which is closed here; otherwise :attr:`out` has it.
    :param log: the level of the app's log, which goes to stderr.
    """

    def __init__(
        self, redis: RedisServer, *arguments: str, to: int | None = None, log: str = "", **config: object
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._out, self._errors = (Path(self._folder.name, name) for name in ("out", "errors"))
        with self._out.open("wb") if to is None else open(to, "wb") as out, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*FLASK, "listen", *arguments],
                cwd=ROOT,
                env={**environment(redis.url, **config), **({"LOG_LEVEL": log} if log else {})},
                stdout=out,
                stderr=errors,
            )

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def out(self) -> bytes:
        return self._out.read_bytes()

    @property
    def errors(self) -> list[str]:
        return self._errors.read_text().splitlines()

    @property
    def events(self) -> list[Event]:
        return decode(self.out)

    def position(self) -> str:
        """Return the id that the output begins with, once it is there."""
        until(lambda: b"\n\n" in self.out or self._process.poll() is not None, "the position")
        assert self.out.startswith(b"id: "), self.errors
        return self.out[len(b"id: ") : self.out.index(b"\n")].decode()

    def await_texts(self, texts: Sequence[str]) -> None:
        until(lambda: [event.data for event in self.events] == list(texts), f"{texts!r}")

    def interrupt(self, *, amid_a_call: bool = True) -> int:
        """Press Ctrl-C, and return the exit code.

        :param amid_a_call: the signal interrupts the system call in which the process waits. False: it does not, as if
            it had come just before that call.
        """
        pid = self._process.pid
        thread = pid if amid_a_call else self._oldest_other_thread()
        signalled = ctypes.CDLL(None, use_errno=True).syscall(TGKILL, pid, thread, signal.SIGINT)
        assert signalled == 0, os.strerror(ctypes.get_errno())
        return self.exit_code()

    def _oldest_other_thread(self) -> int:
        """Return a thread that is not the main one, and lives as long as the process; others come and go."""
        started: dict[int, int] = {}
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                started[int(thread.name)] = int((thread / "stat").read_text().rpartition(")")[2].split()[19])
        del started[self._process.pid]
        return min(started, key=started.__getitem__)

    def exit_code(self) -> int:
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)


@contextmanager
def read_by_test(
    ends: tuple[int, int], redis: RedisServer, *arguments: str, **config: Any
) -> Iterator[tuple[Listening, FileIO]]:
    """Run ``flask sse listen`` with its output to the second of these ends; yield it and the first, which has some."""
    reader, writer = ends
    with FileIO(reader) as output, Listening(redis, *arguments, to=writer, **config) as listening:
        select.select([output], [], [], PATIENCE)
        yield listening, output
