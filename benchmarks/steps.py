"""What several figures do."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .load import Load
from .processes import BenchmarkFailed
from .subjects import Server, Subject


@contextmanager
def served(subject: Subject, settings: Mapping[str, str] | None = None) -> Iterator[tuple[Server, Load]]:
    """A server and its load client. What fails says what the server had to say."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, subject.start(settings) as server:
        try:
            with Load(server.port, Path(folder)) as load:
                yield server, load
        except BenchmarkFailed as error:
            raise BenchmarkFailed(f"{error}\n{server.log}".strip()) from error


def connect(server: Server, load: Load, clients: int) -> None:
    """Open as many streams as are missing."""
    if clients > load.clients:
        load.connect(clients - load.clients, heads_come_late=server.heads_come_late, path=server.path)
        server.await_clients(clients)


def events_for(cpu: float, server: Server, load: Load) -> int:
    """How many events cost so much CPU time; found out on a server that is warm then."""
    load.one_by_one(2)
    events, spent = 1, 0.0
    while spent < cpu / 10:
        events *= 2
        before = server.cpu()
        load.one_by_one(events)
        spent = server.cpu() - before
    return max(2, math.ceil(events * cpu / spent))


def in_turns(one: str, other: str, rounds: int) -> list[str]:
    """One, other, other, one, and so on: neither always comes second."""
    return [one, other, other, one] * (rounds // 2) + [one, other] * (rounds % 2)


def settle(server: Server, look: float = 0.05, share: float = 0.04) -> None:
    """Until it has nothing left to do for what was asked of it.

    :param look: seconds.
    :param share: of a core, which it may take while it rests.
    """
    for _ in range(100):
        before = server.cpu()
        time.sleep(look)
        if server.cpu() - before < look * share:
            return
    raise BenchmarkFailed("the server does not come to rest")
