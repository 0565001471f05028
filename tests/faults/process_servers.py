"""Servers of ``tests.apps.process_faults``, their workers, and heartbeats of their streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import psutil

from tests.support.client import Client
from tests.support.servers import Server
from tests.support.waiting import until

APP = "tests.apps.process_faults:app"


S = TypeVar("S", bound=Server)


def config(**settings: Any) -> dict[str, str]:
    """Return the environment that gives the app this config."""
    return {"CONFIG": json.dumps(settings)}


@contextmanager
def killed(server: S) -> Iterator[S]:
    """Run a server, and kill it at the end: other tests cover how it stops."""
    with server:
        try:
            yield server
        finally:
            server.kill()


def serving(kind: str, **options: Any) -> AbstractContextManager[Server]:
    return killed(Server(kind, APP, **options))


def worker_of(server: Server) -> psutil.Process:
    assert server._process is not None
    [worker] = until(psutil.Process(server._process.pid).children, "the worker")
    return worker


def await_heartbeats(client: Client, count: int = 3) -> None:
    """Read until ``count`` heartbeats have come."""
    seen = 0
    while seen < count:
        got = client.read_some()
        assert got, "the stream has ended"
        seen += got.count(b":\n")
