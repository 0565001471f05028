"""The plan of a soak, its findings, and their verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.faults.soak.events import Histogram
from tests.faults.soak.figures import Verdict, judge, trend

#: MB (of 1,000,000 bytes) by which a worker's memory may grow in an hour.
MEMORY_LIMIT = 0.5

#: Descriptors and greenlets by which a worker may grow in an hour, beyond those of its clients: 1 of 4,500 connections.
COUNT_LIMIT = 20.0

#: How much more than before may remain when all have left, because sampling needs some. Objects are those that the
#: garbage collector knows: hundreds of them come and go, and each connection has about ten.
SURPLUS = {"clients": 0, "descriptors": 2, "greenlets": 2, "threads": 2, "objects": 1_000}

LEFT = ("close", "reset", "half-close")


@dataclass(frozen=True)
class Plan:
    """The plan of a soak. Each client gets all events of one channel."""

    seconds: float = 3600.0  #: duration of publishing
    clients: int = 2000
    churn: float = 50.0  #: clients that disconnect in a second
    rate: float = 100.0  #: events in a second, in all channels
    channels: int = 1
    workers: int = 2
    processes: int = 2  #: number of processes for the clients
    probes: int = 20  #: clients that are read at once, and measure latency
    every: float = 5.0  #: seconds between two samples
    seed: int = 0

    @property
    def warm_up(self) -> float:
        """Seconds that are not judged, in which caches and histories fill: a fifth, at most ten minutes."""
        return min(600.0, self.seconds / 5)

    @property
    def judges_trends(self) -> bool:
        """Whether the run is long enough to judge trends."""
        return self.seconds >= 300


@dataclass
class Findings:
    """The findings of a soak.

    :ivar rows: each sample, with the latencies since the last one, and how late events were published.
    :ivar before: figures of each worker when its first clients have left.
    :ivar after: figures of each worker at the end, when all clients have left.
    :ivar kinds: number of objects of each type in the workers, after the warm-up and at the end.
    :ivar behind: clients without the last events.
    """

    plan: Plan
    rows: list[dict[str, Any]] = field(default_factory=list)
    before: list[dict[str, Any]] = field(default_factory=list)
    after: list[dict[str, Any]] = field(default_factory=list)
    kinds: list[list[dict[str, int]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    published: int = 0
    events: int = 0  #: read by all clients
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def left(self) -> int:
        """The number of disconnects."""
        return sum(self.happened[way] for way in LEFT)

    def judge(self) -> None:
        self.verdicts = [*_judge_clients(self), *_judge_load(self), *_judge_leaks(self), *_judge_trends(self)]


def surplus(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """Return what workers hold more than before."""
    return [
        f"worker {number}: {now[name] - was[name]:+d} {name}"
        for number, (was, now) in enumerate(zip(before, after, strict=True))
        for name, most in SURPLUS.items()
        if now[name] > was[name] + most
    ]


def _judge_clients(found: Findings) -> Iterator[Verdict]:
    yield Verdict(
        "every client's sequence is whole",
        not found.failures and found.events > 0,
        f"{found.events:,} events read, {found.left:,} connections left; "
        f"{len(found.failures)} clients were given something else than what was next",
    )
    yield Verdict(
        "all events reached all clients",
        not found.behind,
        f"{found.published:,} published; {'; '.join(found.behind) or 'all clients are at the last'}",
    )


def _judge_load(found: Findings) -> Iterator[Verdict]:
    plan = found.plan
    rate, left = found.published / plan.seconds, found.left / plan.seconds
    yield Verdict(
        "the load was what it was to be",
        rate >= 0.99 * plan.rate and left >= 0.9 * plan.churn,
        f"{rate:.1f} events and {left:.1f} leaving clients a second; 99 of 100 events no more than "
        f"{1000 * (found.late.quantile(0.99) or 0):.1f} ms late, none more than {1000 * found.late.most:.0f}",
    )


def _judge_leaks(found: Findings) -> Iterator[Verdict]:
    more = surplus(found.before, found.after)
    yield Verdict("nothing is left of clients that have left", not more, "; ".join(more) or "as before they came")


def _judge_trends(found: Findings) -> Iterator[Verdict]:
    if not found.plan.judges_trends:
        return
    rows = [row for row in found.rows if row["at"] >= found.plan.warm_up]
    for number in range(found.plan.workers):
        yield from _judge_worker(f"worker {number}", [(row["at"], row["workers"][number]) for row in rows])
    redis = trend([row["at"] for row in rows], [row["redis"]["private"] / 1e6 for row in rows])
    yield judge("Redis, private memory in MB", redis, MEMORY_LIMIT)


def _judge_worker(name: str, looks: list[tuple[float, dict[str, Any]]]) -> Iterator[Verdict]:
    """Judge whether what a worker holds is flat."""
    times = [at for at, _ in looks]
    memory = trend(times, [worker["private"] / 1e6 for _, worker in looks])
    yield judge(f"{name}, private memory in MB", memory, MEMORY_LIMIT)
    descriptors = trend(times, [worker["descriptors"] - worker["clients"] for _, worker in looks])
    yield judge(f"{name}, descriptors beside those of clients", descriptors, COUNT_LIMIT)
    counted = [(at, worker["greenlets"]) for at, worker in looks if "greenlets" in worker]
    greenlets = trend([at for at, _ in counted], [number for _, number in counted])
    yield judge(f"{name}, greenlets", greenlets, COUNT_LIMIT)
