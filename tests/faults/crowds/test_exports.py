"""The export of a database to a client that pauses, by ``send_from`` and by a generator of plain Flask.

``ROWS=200000 pytest -s tests/faults/crowds/test_exports.py`` is a larger one, whose client pauses for 3 s; it prints a
table.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.support.client import Client, connected, get, new_name
from tests.support.servers import Server
from tests.support.waiting import until

ROWS = int(os.environ.get("ROWS", 20_000))

#: Characters of each row: together far more than may be in memory.
SIZE = 1_000

#: Seconds of the client's pause, which begins once the server has nothing more to do.
PAUSE = 3.0 if "ROWS" in os.environ else 0.0

#: By so much a worker may grow.
MOST_GROWTH = 10_000_000


class Figures(NamedTuple):
    """What an export costs."""

    seconds: float  #: from the end of the pause
    growth: int  #: of the worker's memory, in bytes, at most
    pulled: int  #: rows, as the client paused
    waits: list[float]  #: seconds that other requests took meanwhile, in ascending order

    def __str__(self) -> str:
        middle, slow, worst = (self._wait(share) for share in (0.5, 0.99, 1.0))
        return (
            f"{ROWS} rows in {self.seconds:6.2f} s; {self.growth / 1e6:5.1f} MB more; {self.pulled:6} pulled at first; "
            f"others waited {middle:5.1f} ms, {slow:6.1f} ms (99 %), {worst:7.1f} ms at most"
        )

    def _wait(self, share: float) -> float:
        """Return the milliseconds within which this share of the other requests was answered."""
        return 1000 * self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))]


def read_rows(client: Client) -> None:
    """Read the rows up to a clean end, and check that they are all, and in order."""
    number, text = 0, b""
    while data := client.read_some():
        *blocks, text = (text + data).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: ") and block != b"data: [DONE]":
                assert block.startswith(b"data: %d," % number), f"{block[:30]!r} in place of {number}"
                number += 1
    assert (number, text) == (ROWS, b"")


@contextmanager
def measured(server: Server, name: str) -> Iterator[tuple[list[float], list[int]]]:
    """Ask the server for something else all the while; give the seconds that each took, and the worker's memory."""
    waits, sizes, over = [], [], threading.Event()
    worker = psutil.Process(get(server, "/stats")["pid"])
    sizes.append(worker.memory_info().rss)

    def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            get(server, f"/pulled/{name}")
            waits.append(time.monotonic() - began)
            sizes.append(worker.memory_info().rss)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield waits, sizes
        finally:
            over.set()
            asking.result()


def export(server: Server, path: str) -> Figures:
    name = new_name()

    def pauses() -> bool:
        before = get(server, f"/pulled/{name}")["items"]
        time.sleep(0.2)
        return bool(before == get(server, f"/pulled/{name}")["items"] > 0)

    with measured(server, name) as (waits, sizes), connected(server, path.format(name=name)) as client:
        until(pauses, "the generator to pause")
        pulled = get(server, f"/pulled/{name}")["items"]
        assert pulled < ROWS
        time.sleep(PAUSE)
        began = time.monotonic()
        read_rows(client)
        seconds = time.monotonic() - began
    until(lambda: get(server, f"/pulled/{name}") == {"items": ROWS, "closed": 1}, "the generator to be closed")
    return Figures(seconds, max(sizes) - sizes[0], pulled, sorted(waits))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_export_to_a_client_that_pauses_is_whole_and_takes_little_memory(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO rows VALUES (?, ?)", ((number, "x" * SIZE) for number in range(ROWS)))
    with Server(kind, "tests.apps.handoff:app") as server:
        found = {
            way: export(server, f"/{path}/{{name}}?path={file}")
            for way, path in (("send_from", "rows"), ("plain Flask", "plain-rows"))
        }
        assert "Traceback" not in server.log
    print("".join(f"\n{kind:8} {way:12} {each}" for way, each in found.items()))  # noqa: T201 - measurements
    assert found["send_from"].growth < MOST_GROWTH
