"""What is measured of an app's streams: what each figure is called, and where ``sse.stats()`` has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from ..errors import CloseReason

Stats: TypeAlias = dict[str, Any]

#: The names of all limits: the last one is of a channel.
LIMITS = (
    "SSE_MAX_CLIENTS",
    "RLIMIT_NOFILE",
    "SSE_MAX_CLIENTS_PER_IDENTITY",
    "SSE_MAX_CLIENTS_PER_ADDRESS",
    "max_clients",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, or one for each value of a label.

    :param read: gives the numbers by label; where there is no label, one.
    :param mode: of what goes up and down: how one number is made of those of several live processes. What is only
        counted has none.
    """

    name: str
    text: str
    read: Callable[[Stats], Mapping[str, float]]
    label: str = ""
    mode: Literal["livesum", "livemin"] | None = None

    @property
    def labels(self) -> list[str]:
        return [self.label] if self.label else []


def _only(key: str) -> Callable[[Stats], Mapping[str, float]]:
    return lambda stats: {"": stats[key]}


def _closed(stats: Stats) -> Mapping[str, float]:
    # Also those of which there are none yet: of a first one, only a zero before it shows that something has changed.
    return {reason.value: stats["closed"].get(reason.value, 0) for reason in CloseReason}


def _refused(stats: Stats) -> Mapping[str, float]:
    return {**dict.fromkeys(LIMITS, 0), **stats["refused_by"]}


GAUGES = (
    Figure("clients", "Open streams, by who writes them.", itemgetter("outlets"), "outlet", "livesum"),
    Figure(
        "max_clients",
        "So many streams there may be: SSE_MAX_CLIENTS, or fewer with too few files.",
        _only("max_clients"),
        mode="livesum",
    ),
    Figure("pending", "Events that wait for clients.", _only("pending"), mode="livesum"),
    Figure(
        "broker_up",
        "1 while the broker works, else 0.",
        lambda stats: {"": stats["broker"]["state"] == "ok"},
        mode="livemin",
    ),
    Figure("draining", "Processes that end their streams, because they stop.", _only("draining"), mode="livesum"),
    Figure(
        "warnings",
        "Settings that should be changed: what sse.stats() warns of.",
        lambda stats: {"": len(stats["warnings"])},
        mode="livesum",
    ),
    Figure("build_info", "1, with the version.", lambda stats: {stats["version"]: 1}, "version", "livemin"),
)

COUNTERS = (
    Figure("streams_opened", "Streams that began, without those refused.", _only("opened")),
    Figure("streams_closed", "Streams that ended, by their close_reason.", _closed, "reason"),
    Figure("streams_refused", "Streams that were sent away because there were too many.", _refused, "limit"),
    Figure("requests_denied", "Requests for channels that a rule, or their origin, forbade.", _only("denied")),
    Figure("events_published", "Events that were published.", _only("published")),
    Figure(
        "publish_failures", "Events that the broker did not confirm.", lambda stats: {"": stats["publish"]["failed"]}
    ),
    Figure("deliveries", "Events written to clients: each event, times each client.", _only("deliveries")),
    Figure("delivered_bytes", "Bytes written to clients, heartbeats among them.", _only("bytes")),
    Figure("replayed", "Deliveries of what a client had missed.", _only("replayed")),
    Figure("gaps", "Clients that were told of a gap.", _only("gaps")),
    Figure("dropped", "Events that were dropped because their client was slow.", _only("dropped")),
)
