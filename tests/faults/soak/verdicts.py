"""What a soak is to do, what it has found, and whether anything grows."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

#: MB (of 1,000,000 bytes) by which the memory of a process may grow in an hour.
MEMORY_LIMIT = 0.5

#: Descriptors and greenlets by which a worker may grow in an hour, beyond those of its clients: 1 of 4,500 connections.
COUNT_LIMIT = 20.0

#: How much more than before may remain when all have left, because sampling needs some. A worker keeps up to eight
#: connections to Redis: as many as it has needed at once.
SURPLUS = {"clients": 0, "descriptors": 8, "greenlets": 2, "threads": 2, "objects": 50}

#: The ways in which clients leave.
WAYS = ("close", "reset", "half-close")

#: Seconds: nine tenths of the default of ``SSE_TIMEOUT``, as lifetimes differ by up to a tenth.
SHORTEST_LIFETIME = 0.9 * 1800

Row = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """The plan of a soak. Each client gets all events of one channel."""

    seconds: float = 3600.0  #: duration of publishing
    clients: int = 2000
    churn: float = 50.0  #: clients that disconnect in a second
    rate: float = 100.0  #: events in a second, in all channels
    channels: int = 1
    workers: int = 2
    worker: str = "gevent"  #: their class
    processes: int = 2  #: number of processes for the clients
    probes: int = 20  #: further clients that stay and measure latency, in a process of their own
    every: float = 10.0  #: seconds between two samples, for which a worker has to visit all of its objects
    seed: int = 0

    @property
    def warm_up(self) -> float:
        """Seconds that are not judged, in which caches and histories fill: a fifth, at most ten minutes."""
        return min(600.0, self.seconds / 5)


@dataclass
class Findings:
    """The findings of a soak.

    :ivar rows: a sample each.
    :ivar before: what each worker held when its first clients had left.
    :ivar after: what each worker held at the end, when all clients had left.
    :ivar ends: how many connections have ended in which way.
    """

    plan: Plan
    rows: list[Row] = field(default_factory=list)
    before: list[dict[str, Any]] = field(default_factory=list)
    after: list[dict[str, Any]] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    latencies: array[float] = field(default_factory=lambda: array("d"))
    published: int = 0
    read: int = 0


@dataclass(frozen=True)
class Verdict:
    what: str
    passed: bool
    found: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.what}: {self.found}"


def verdicts(found: Findings) -> list[Verdict]:
    """Judge everything but the sequences, of which the first that is wrong ends the soak."""
    plan = found.plan
    left = sum(found.ends[way] for way in WAYS)
    others = {how: count for how, count in found.ends.items() if how not in WAYS}
    if others.get("age", 0) <= plan.probes * (plan.seconds // SHORTEST_LIFETIME):  # those clients stay for all of it
        others.pop("age", None)
    more = surplus(found.before, found.after)
    return [
        Verdict(
            "the load was what it was to be",
            found.published >= 0.99 * plan.rate * plan.seconds and left >= 0.9 * plan.churn * plan.seconds,
            f"{found.published:,} events published, {found.read:,} read; {left:,} connections left by clients",
        ),
        Verdict("no stream was ended by the server before its time", not others, str(others or "none")),
        Verdict("nothing is left of clients that have left", not more, "; ".join(more) or "as before they came"),
        *(_trends(found) if plan.seconds >= 300 else ()),  # less cannot show a trend
    ]


def surplus(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[str]:
    """Return what workers hold more than before."""
    return [
        f"worker {number}: {now[name] - was[name]:+d} {name}"
        for number, (was, now) in enumerate(zip(before, after, strict=True))
        for name, most in SURPLUS.items()
        if now[name] > was[name] + most
    ]


def _trends(found: Findings) -> Iterator[Verdict]:
    rows = [row for row in found.rows if row["at"] >= found.plan.warm_up]
    for name in rows[0]:
        limit = MEMORY_LIMIT if name.endswith("MB") else COUNT_LIMIT
        if name.endswith(("MB", "descriptors", "greenlets")):
            slope, noise = trend([row["at"] for row in rows], [row[name] for row in rows])
            text = f"{slope:+.2f} an hour, at most {limit:+g} (noise {noise:.2f})"
            yield Verdict(f"{name} does not grow", slope <= limit, text)


def trend(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return how much a series grows in an hour, and how far half of its points are from that line.

    The slope is the median of those between points half of the time apart, so that outliers do not count.

    :param times: in seconds, ascending.
    """
    half = len(times) // 2
    pairs = zip(times, values, times[half:], values[half:], strict=False)
    slope = median((later - value) / (end - at) for at, value, end, later in pairs)
    rest = [value - slope * at for at, value in zip(times, values, strict=True)]
    middle = median(rest)
    return slope * 3600, median(abs(each - middle) for each in rest)
