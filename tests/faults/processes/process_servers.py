"""Servers of ``tests.apps.faults.process_faults``, their workers, and heartbeats of their streams."""

from __future__ import annotations

import json
from typing import Any

import psutil

from tests.support.client import Client
from tests.support.servers import Server
from tests.support.waiting import until


def config(**settings: Any) -> dict[str, str]:
    """Return the environment that gives the app this config."""
    return {"CONFIG": json.dumps(settings)}


def serving(kind: str, **options: Any) -> Server:
    return Server(kind, "tests.apps.faults.process_faults:app", **options)


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
