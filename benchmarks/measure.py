"""What was measured: plain numbers by figure, clients and subject, one for each run."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TextIO


@dataclass(frozen=True)
class Metric:
    """One number that a figure gives.

    :ivar digits: after the point, where it is shown.
    """

    name: str
    title: str
    unit: str
    digits: int = 2


DELIVERY_CPU = Metric("delivery_cpu", "Server CPU per delivery, one by one", "µs")
DELIVERY_HELPERS = Metric("delivery_helpers_cpu", "CPU per delivery of its helper (Redis), one by one", "µs")
DELIVERY_LOAD = Metric("delivery_load_cpu", "CPU of the load client per delivery, one by one", "µs")
LATENCY_P50 = Metric("latency_p50", "Latency of a delivery, one by one: median", "ms")
LATENCY_P99 = Metric("latency_p99", "Latency of a delivery, one by one: 99th percentile", "ms")
LATENCY_MAX = Metric("latency_max", "Latency of a delivery, one by one: slowest", "ms")
BURST_RATE = Metric("burst_rate", "Deliveries per second, burst of 16 publishers", "1/s", 0)
BURST_CPU = Metric("burst_cpu", "Server CPU per delivery, burst of 16 publishers", "µs")
BURST_SHARE = Metric(
    "burst_share", "Share of its core that the server had in the burst (the rest is others' or idle)", "%", 0
)
BURST_LOAD = Metric("burst_load_cpu", "CPU of the load client per delivery, burst of 16 publishers", "µs")
MEMORY = Metric("memory", "Memory (PSS) per idle client", "bytes", 0)
CONNECT_CPU = Metric("connect_cpu", "Server CPU per new stream", "µs", 0)
PLAIN_CPU = Metric("plain_cpu", "Server CPU per plain view on a new connection", "µs", 0)
CONNECT_RATIO = Metric("connect_ratio", "New stream, in plain views of the same server", "times")
IDLE_CPU = Metric("idle_cpu", "Idle CPU", "% of a core")
IDLE_HEARTBEATS = Metric("idle_heartbeats", "Heartbeats per client meanwhile", "")
STUCK_WITHOUT = Metric("stuck_without", "99th percentile without a stuck client", "ms")
STUCK_WITH = Metric("stuck_with", "99th percentile of the others with one stuck client", "ms")
STUCK_RATIO = Metric("stuck_ratio", "With one stuck client, in times without", "times")
ORDINARY_P50 = Metric("ordinary_p50", "An ordinary request during broadcasts: median", "ms")
ORDINARY_P99 = Metric("ordinary_p99", "An ordinary request during broadcasts: 99th percentile", "ms")
ORDINARY_MAX = Metric("ordinary_max", "An ordinary request during broadcasts: slowest", "ms")

METRICS = [
    DELIVERY_CPU,
    DELIVERY_HELPERS,
    DELIVERY_LOAD,
    LATENCY_P50,
    LATENCY_P99,
    LATENCY_MAX,
    BURST_RATE,
    BURST_CPU,
    BURST_SHARE,
    BURST_LOAD,
    MEMORY,
    CONNECT_CPU,
    PLAIN_CPU,
    CONNECT_RATIO,
    IDLE_CPU,
    IDLE_HEARTBEATS,
    STUCK_WITHOUT,
    STUCK_WITH,
    STUCK_RATIO,
    ORDINARY_P50,
    ORDINARY_P99,
    ORDINARY_MAX,
]


class Results:
    """Every value, and what they come to."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[Metric, int, str], list[float]] = defaultdict(list)

    def add(self, metric: Metric, clients: int, subject: str, value: float) -> None:
        self._values[metric, clients, subject].append(value)

    def values(self, metric: Metric, clients: int, subject: str) -> list[float]:
        return self._values.get((metric, clients, subject), [])

    def median(self, metric: Metric, clients: int, subject: str) -> float | None:
        values = self.values(metric, clients, subject)
        return statistics.median(values) if values else None

    def clients(self, metric: Metric) -> list[int]:
        """With how many clients there are values of this."""
        return sorted({clients for known, clients, _ in self._values if known is metric})

    def subjects(self, metric: Metric) -> set[str]:
        return {subject for known, _, subject in self._values if known is metric}


@dataclass
class Journal:
    """What is said while it runs: to the terminal, and into a log."""

    file: TextIO | None = None
    _began: float = field(default_factory=time.monotonic)

    def say(self, text: str = "") -> None:
        for out in (sys.stdout, self.file):
            if out is not None:
                print(text, file=out, flush=True)

    def note(self, text: str) -> None:
        self.say(f"[{time.monotonic() - self._began:6.1f} s, load {os.getloadavg()[0]:.1f}] {text}")
