"""Drives the load client, which is ``load.c``, and the publisher beside it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .processes import LOAD_CORE, ROOT, BenchmarkFailed, compiled, on_core

SOURCE = Path(__file__).parent / "load.c"

#: Bytes of an event in all, on the wire of a server that adds nothing.
SIZE = 100

#: How many connections may be on their way at once.
AT_ONCE = 64

#: For how long a command may take. The load client itself gives up earlier where nothing comes.
_PATIENCE = 900


@dataclass(frozen=True)
class Answer:
    """What the load client did and saw while it ran one command."""

    seconds: float
    cpu_seconds: float
    clients: int
    deliveries: int
    comments: int
    bytes_read: int
    bytes_published: int
    p50_us: float = 0.0
    p99_us: float = 0.0
    max_us: float = 0.0
    last_p50_us: float = 0.0
    last_p99_us: float = 0.0
    delivery_seconds: float = 0.0
    ports: list[int] = field(default_factory=list)


class Load:
    """The clients of one server. Any delivery that is lost, doubled or wrong raises :class:`BenchmarkFailed`."""

    def __init__(self, port: int, folder: Path) -> None:
        with on_core(LOAD_CORE):
            self._process = subprocess.Popen(
                [str(compiled(SOURCE, folder)), str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.clients = 0
        #: That the next event will have.
        self.next_number = 1

    def __enter__(self) -> Load:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self.idle(0.1)  # nothing comes twice
        finally:
            self._stop()

    def connect(
        self,
        count: int,
        *,
        at_once: int = AT_ONCE,
        heads_come_late: bool = False,
        path: str = "/events",
        channels: int = 0,
    ) -> Answer:
        """Open streams; without waiting for response heads where these come only with the first event.

        :param path: in which ``*`` is the number of the client's channel.
        :param channels: so many, in turns; 0: one for each client.
        """
        answer = self._run(f"connect {count} {at_once} {'request' if heads_come_late else 'head'} {path} {channels}")
        self.clients = answer.clients
        return answer

    def plain(self, count: int, *, at_once: int = AT_ONCE) -> Answer:
        return self._run(f"plain {count} {at_once}")

    def one_by_one(self, events: int, *, size: int = SIZE) -> Answer:
        return self._checked(f"one-by-one {events} {size}", events, self.clients)

    def burst(self, publishers: int, each: int, *, size: int = SIZE) -> Answer:
        return self._checked(f"burst {publishers} {each} {size}", publishers * each, self.clients)

    def scattered(self, events: int, publish: Callable[[], object], *, size: int = SIZE, channels: int = 0) -> Answer:
        """Read what is published: each event goes to the clients of one channel.

        :param publish: publishes them, or has it begin; called once they are waited for.
        :param channels: so many; 0: one for each client.
        """
        channels = channels or self.clients
        return self._checked(f"scattered {events} {size} {channels}", events, self.clients // channels, publish)

    def stuck(self, count: int) -> Answer:
        return self._run(f"stuck {count}")

    def unstuck(self) -> Answer:
        return self._run("unstuck")

    def idle(self, seconds: float) -> Answer:
        return self._run(f"idle {seconds}")

    def close(self) -> Answer:
        self.clients = 0
        return self._run("close")

    def _checked(
        self, command: str, events: int, receivers: int, once_ready: Callable[[], object] | None = None
    ) -> Answer:
        answer = self._run(command, once_ready)
        self.next_number += events
        if answer.deliveries != events * receivers:
            raise BenchmarkFailed(f"{answer.deliveries} deliveries of {events} events to {receivers} clients each")
        return answer

    def _run(self, command: str, once_ready: Callable[[], object] | None = None) -> Answer:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has said why
        if once_ready is not None:
            self._read(command)
            once_ready()
        return Answer(**self._read(command))

    def _read(self, command: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise BenchmarkFailed(f"{command}: no answer for {_PATIENCE} s")
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the load client crashed"}
        if "error" in answer:
            raise BenchmarkFailed(f"{command}: {answer['error']}")
        return answer

    def _stop(self) -> None:
        """It resets its connections and ends when its input does; unless it is in the middle of a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


class Publisher:
    """Publishes through this package from a process beside the load client: see ``apps/publisher.py``."""

    def __init__(self, settings: Mapping[str, str], *, threads: int = 4, size: int = SIZE) -> None:
        with on_core(LOAD_CORE):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.apps.publisher", str(threads), str(size)],
                cwd=ROOT,
                env={**os.environ, **{f"BENCH_{key}": value for key, value in settings.items()}},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, first: int, count: int, rate: float, channel: str, channels: int = 1) -> None:
        """Publish, from a moment later on.

        :param first: the number of the first event.
        :param rate: a second; 0 is as fast as it can.
        :param channel: in which ``*`` is the number of the channel.
        """
        assert self._process.stdin is not None
        begin = time.monotonic() + 0.5
        self._process.stdin.write(f"{first} {count} {rate} {channel} {channels} {begin}\n")
        self._process.stdin.flush()

    def end(self) -> Published:
        """Wait until all is published."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise BenchmarkFailed(f"the publisher has not published all in {_PATIENCE} s")
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it crashed"}
        if error := answer.pop("error"):
            raise BenchmarkFailed(f"the publisher failed: {error}")
        return Published(**answer)


@dataclass(frozen=True)
class Published:
    """What the publisher did.

    :ivar latest: by so many seconds an event was later than the rate has it.
    """

    seconds: float
    cpu_seconds: float
    latest: float
