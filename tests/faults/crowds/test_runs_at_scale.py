"""Many runs over Redis, whose workers are killed: each reader has all and one end, or is told that it has not.

``RUNS=2000 pytest tests/faults/crowds/test_runs_at_scale.py`` changes how many there are; ``pytest -s`` prints the
measurements.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from benchmarks.processes import raise_limits
from tests.faults.crowds.run_readers import INTERRUPTED, RunReaders, Watched
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import new_name, post
from tests.support.waiting import until
from tests.support.web.workers_server import WorkersServer

#: So many runs, in waves of at most so many: amid each, a worker is killed.
RUNS = int(os.environ.get("RUNS", 30))
WAVE = 200

#: Numbers of each run, seconds between two of them, and seconds within which its readers come.
COUNT, EVERY, WITHIN = 20, 0.05, 2.0

WORKERS = 3

#: Lookups and publishes may take so long on a busy machine: a reader that comes meanwhile must not miss the beginning.
CONFIG = {"SSE_HEARTBEAT": 5, "SSE_PUBLISH_SECONDS": 20}


def begin(server: WorkersServer, readers: RunReaders, run: Watched, file: Path) -> None:
    """Begin a run: one reader is there before, and two come while it runs."""
    readers.add(run, within=0.0)
    readers.step()
    run.pid = post(server, f"/start/{run.name}?count={run.count}&seconds={EVERY}&file={file}")["pid"]
    for _ in range(2):
        readers.add(run, within=WITHIN)


def kill(server: WorkersServer, pid: int, runs: list[Watched]) -> None:
    """Kill a worker, and note whose runs it had."""
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    for run in runs:
        run.killed = time.monotonic() if run.pid == pid else 0.0
    until(lambda: not process.is_running() and len(server.workers) == WORKERS, "another worker")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["gthread", "gevent", "sync"])
def test_runs_of_killed_workers_reach_all_readers_or_are_interrupted(kind: str, tmp_path: Path, seed: int) -> None:
    raise_limits()
    dice = random.Random(seed)
    runs: list[Watched] = []
    with (
        RedisServer() as redis,
        WorkersServer(
            kind,
            "tests.apps.faults.run_crowd:app",
            WORKERS,
            env={"CONFIG": json.dumps({"SSE_BROKER_URL": redis.url, **CONFIG})},
        ) as server,
        RunReaders(server.port, seed) as readers,
    ):
        began = time.monotonic()
        while len(runs) < RUNS:
            file = tmp_path / new_name()
            wave = [
                Watched(f"{'short-' if number % 5 == 0 else ''}{new_name()}", COUNT, number % 5 == 0)
                for number in range(len(runs), min(RUNS, len(runs) + WAVE))
            ]
            runs += wave
            for run in wave:
                begin(server, readers, run, file)
            kept = [run for run in wave if not run.is_short]
            readers.run_until(lambda kept=kept: all(run.seen >= COUNT // 2 for run in kept), "half of each run")  # type: ignore[misc]
            kill(server, dice.choice(kept).pid, wave)
            file.touch()
        readers.run_until(lambda: all(each.is_over for each in readers.readers), "all readers to come to the end")
        for run in runs:
            readers.add(run, within=WITHIN, is_late=True)
        readers.run_until(lambda: all(each.is_over for each in readers.readers), "those who came after the end")
        seconds = time.monotonic() - began
        assert server.log.count("Traceback") == 0, server.log[-3000:]
    ways = Counter(each.last or "nothing" for each in readers.readers)
    for run in runs:
        ends = {each.last for each in run.readers if each.last}
        assert len(ends) <= 1, f"{run.name} ended as {ends}"
        if not run.is_short:
            assert ends == {INTERRUPTED if run.killed else "[DONE]"}
            assert len({each.next for each in run.readers}) == 1, "all have the same"
    print(  # noqa: T201 - measurements
        f"\n{kind}: {len(runs)} runs, {len(readers.readers)} readers in {seconds:.0f} s; {readers.events} events; "
        f"connections that ended before: {dict(readers.ends)}; the readers had at last: {dict(ways)}; interrupted "
        f"{min(readers.waited):.1f} to {max(readers.waited):.1f} s after the kill ({len(readers.waited)} runs)"
    )
