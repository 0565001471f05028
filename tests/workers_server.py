"""A gunicorn of several workers, each of which gets its share of the clients."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from types import TracebackType

import psutil

from .client import get
from .servers import Server
from .waiting import until


class WorkersServer(Server):
    """The system picks a worker for each connection; of a socket that they share, whoever wakes first takes nearly all.

    :param app: answers ``/state`` with its ``pid``.
    """

    def __init__(
        self, kind: str, app: str, workers: int, *, env: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> None:
        self._count = workers
        self._held = socket.socket()  # so that nobody else gets the port while no worker listens
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            self._held.setsockopt(socket.SOL_SOCKET, option, 1)
        self._held.bind(("127.0.0.1", 0))
        port = self._held.getsockname()[1]
        bind = {"GUNICORN_CMD_ARGS": f"--reuse-port --bind=127.0.0.1:{port}"}
        super().__init__(kind, app, env={**env, **bind}, arguments=[*arguments, "--workers", str(workers)])

    def __enter__(self) -> WorkersServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        super().__exit__(kind, error, tb)
        self._held.close()

    def start(self) -> None:
        self.port = 0  # of a socket that no worker listens at
        super().start()
        self.port = self._held.getsockname()[1]
        pids: set[int] = set()

        def all_have_answered() -> bool:
            try:
                pids.add(get(self, "/state")["pid"])
            except OSError:  # none has begun to listen
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
