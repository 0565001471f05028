"""Define the metrics of an app's streams: their names, texts and labels, and where ``sse.stats()`` has their values.

Pure: knows nothing of Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import CloseReason
from ..types import Stats

#: The names of all limits on streams: config keys, files that the process may open, and the limit of a channel.
LIMITS = (
    "SSE_MAX_CLIENTS",
    "RLIMIT_NOFILE",
    "SSE_MAX_CLIENTS_PER_IDENTITY",
    "SSE_MAX_CLIENTS_PER_ADDRESS",
    "max_clients",
)

#: The histogram of publishing: its name and text.
PUBLISH_SECONDS = "publish_seconds", "How long publishing an event took, until the broker had it."


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric, which has one value, or one for each value of its label.

    :ivar name: without the prefix.
    :ivar read: returns its value, or its values by label; None reads the key of :meth:`.SSE.stats` with its name.
    :ivar mode: of a gauge: how prometheus_client combines the values of several live processes. A counter has none.
    """

    name: str
    text: str
    read: Callable[[Stats], float | Mapping[str, float]] | None = None
    label: str = ""
    mode: Literal["livesum", "livemin"] | None = None

    @property
    def labels(self) -> list[str]:
        """The names of its labels."""
        return [self.label] if self.label else []

    def values(self, stats: Stats) -> Mapping[str, float]:
        """Return its values by label; without a label, one value for ``""``."""
        figures: Mapping[str, Any] = stats
        value = figures[self.name] if self.read is None else self.read(stats)
        return value if isinstance(value, Mapping) else {"": value}


def _closed(stats: Stats) -> Mapping[str, float]:
    # All reasons, from 0 on: Prometheus sees an increase only after a sample before it.
    return {reason.value: stats["closed"].get(reason.value, 0) for reason in CloseReason}


def _outlets(stats: Stats) -> Mapping[str, float]:
    return {"handed_off": stats["outlets"]["handed_off"], "server": stats["outlets"]["server"]}


def _refused(stats: Stats) -> Mapping[str, float]:
    return {**dict.fromkeys(LIMITS, 0), **stats["refused_by"]}


GAUGES = (
    MetricDefinition("clients", "Open streams, by who writes them.", _outlets, "outlet", "livesum"),
    MetricDefinition(
        "max_clients", "So many streams there may be: SSE_MAX_CLIENTS, or fewer with too few files.", mode="livesum"
    ),
    MetricDefinition("pending", "Events that wait for clients.", mode="livesum"),
    MetricDefinition(
        "broker_up",
        "1 while the broker works, else 0.",
        lambda stats: stats["broker"]["state"] == "ok",
        mode="livemin",
    ),
    MetricDefinition("draining", "Processes that end their streams, because they stop.", mode="livesum"),
    MetricDefinition(
        "warnings",
        "Settings that should be changed: what sse.stats() warns of.",
        lambda stats: len(stats["warnings"]),
        mode="livesum",
    ),
    MetricDefinition("build_info", "1, with the version.", lambda stats: {stats["version"]: 1}, "version", "livemin"),
)

COUNTERS = (
    MetricDefinition("streams_opened", "Streams that began, without those refused.", lambda stats: stats["opened"]),
    MetricDefinition("streams_closed", "Streams that ended, by their close_reason.", _closed, "reason"),
    MetricDefinition("streams_refused", "Streams that were sent away because there were too many.", _refused, "limit"),
    MetricDefinition(
        "streams_moved",
        "Streams that moved to another worker (out), and that came from one (in), as a worker stopped.",
        lambda stats: {way: stats["moved"][way] for way in ("in", "out")},
        "direction",
    ),
    MetricDefinition(
        "requests_denied",
        "Requests for channels that a rule, or their origin, forbade.",
        lambda stats: stats["denied"],
    ),
    MetricDefinition("events_published", "Events that were published.", lambda stats: stats["published"]),
    MetricDefinition(
        "publish_failures", "Events that the broker did not confirm.", lambda stats: stats["publish"]["failed"]
    ),
    MetricDefinition("deliveries", "Events written to clients: each event, times each client."),
    MetricDefinition(
        "delivered_bytes", "Bytes written to clients, heartbeats among them.", lambda stats: stats["bytes"]
    ),
    MetricDefinition("replayed", "Deliveries of what a client had missed."),
    MetricDefinition("gaps", "Clients that were told of a gap."),
    MetricDefinition("dropped", "Events that were dropped because their client was slow."),
)
