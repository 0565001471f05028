"""A gunicorn with several workers that share the clients evenly."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import psutil

from tests.support.client import Client, get
from tests.support.servers import Server
from tests.support.waiting import until


class WorkersServer(Server):
    """Workers with a socket each, so that the kernel spreads connections. On a shared socket, one takes nearly all.

    :param app: answers ``/state`` with its ``pid``.
    """

    def __init__(
        self, kind: str, app: str, workers: int, *, env: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> None:
        self._count = workers
        self._held = socket.socket()  # so that no other process gets the port while no worker listens
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            self._held.setsockopt(socket.SOL_SOCKET, option, 1)
        self._held.bind(("127.0.0.1", 0))
        port = self._held.getsockname()[1]
        bind = {"GUNICORN_CMD_ARGS": f"--reuse-port --bind=127.0.0.1:{port}"}
        super().__init__(kind, app, env={**env, **bind}, arguments=[*arguments, "--workers", str(workers)])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        super().__exit__(kind, error, tb)
        self._held.close()

    def start(self) -> None:
        self.port = 0  # the port of a socket at which no worker listens
        super().start()
        self.port = self._held.getsockname()[1]
        pids: set[int] = set()

        def all_have_answered() -> bool:
            try:
                pids.add(get(self, "/state")["pid"])
            except OSError:  # no worker listens yet
                return False
            return len(pids) == self._count

        try:
            until(all_have_answered, f"{self._count} workers")
        except BaseException:
            self.kill()
            raise

    @property
    def workers(self) -> list[psutil.Process]:
        assert self._process is not None
        return psutil.Process(self._process.pid).children()


def connect_to_each_worker(connect: Callable[[], Client], workers: int = 2) -> list[Client]:
    """Connect clients until each worker serves at least one, and return them all."""
    clients: list[Client] = []

    def are_in_each() -> bool:
        clients.append(connect())
        return len({client.response.headers["X-Worker"] for client in clients}) == workers

    until(are_in_each, "a client in each worker")
    return clients
