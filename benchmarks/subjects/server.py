"""What all subjects have in common."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from ..load import Load
from ..processes import BenchmarkFailed, Program, cpu_seconds, pss_bytes

_PATIENCE = 30


class Server:
    """A subject that runs; a ``with`` ends it.

    :ivar pids: what counts as the server: the processes that hold clients, not those that only watch over them.
    :ivar helpers: other processes that deliver events too, by what they are.
    :ivar settings: config keys, for those that have any.
    """

    #: The response head leaves with the first event, so that clients cannot wait for it.
    heads_come_late = False

    #: Of the stream. A ``*`` in it is the number of the client.
    path = "/events"

    #: Of the stream of one channel, whose name takes the place of the braces.
    channel_path = "/events/{}"

    #: Where what keeps the channels answers, unless that is the server itself.
    broker_url: str | None = None

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="benchmarks-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.port = free_port()
        self.programs: list[Program] = []
        self.pids: list[int] = []
        self.helpers: dict[str, int] = {}
        self.settings: Mapping[str, str] = {}

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        for program in reversed(self.programs):
            program.stop()
        self._folder.cleanup()

    def add(self, program: Program) -> Program:
        self.programs.append(program)
        return program

    def cpu(self) -> float:
        return cpu_seconds(self.pids)

    def broker_cpu(self) -> float:
        return cpu_seconds(self.helpers.values())

    def pss(self) -> int:
        """Of everything that was started for it, so that what processes share counts once."""
        return pss_bytes({*self.pids, *(program.pid for program in self.programs)} - set(self.helpers.values()))

    def await_clients(self, count: int) -> None:
        """Until events reach so many; nothing to wait for where a response head says as much."""

    def connect_each(self, load: Load, count: int, name: str, /) -> None:
        """Open so many streams, each of a channel of its own."""
        load.connect(count, heads_come_late=self.heads_come_late, path=self.channel_path.format(f"{name}-*"))

    @contextlib.contextmanager
    def reader(self, channel: str) -> Iterator[socket.socket]:
        """Read a channel, as its one client. What it gets stays in its socket."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            head = "HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
            client.sendall(f"GET {self.channel_path.format(channel)} {head}".encode())
            if not self.heads_come_late:
                client.recv(65536)
            yield client

    @property
    def log(self) -> str:
        return "\n".join(program.log for program in self.programs)


class Subject(ABC):
    """One of those that are compared.

    :ivar most_clients: with how many it can be asked to do its work in reasonable time.
    """

    most_clients = 19_000
    #: The packages that it needs.
    packages: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        """Why it cannot run here."""
        absent = [package for package in self.packages if importlib.util.find_spec(package) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    def start(self, settings: Mapping[str, str] | None = None) -> Server:
        """Start it on a free port; it answers requests then."""
        server = self.server()
        try:
            server.settings = settings or {}
            self.prepare(server)
            self.launch(server)
            await_answer(server)
            server.pids = self.pids(server)
        except BaseException as error:
            log = server.log
            server.stop()
            if isinstance(error, OSError):
                raise BenchmarkFailed(f"{self.name} did not start: {error}\n{log}") from error
            raise
        return server

    def server(self) -> Server:
        return Server()

    def prepare(self, server: Server) -> None:  # noqa: B027 - most need nothing
        """Start what it needs besides itself."""

    @abstractmethod
    def launch(self, server: Server) -> None: ...

    def pids(self, server: Server) -> list[int]:
        return [server.programs[-1].pid]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def await_answer(server: Server) -> None:
    """Until it answers a request, with whatever."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/ready")
                connection.getresponse()
                return
            except OSError:
                if time.monotonic() > deadline or not all(program.running for program in server.programs):
                    raise
        time.sleep(0.05)
