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
CONVOY_ALONE = Metric("convoy_alone", "From send until the last client has the event", "ms", 1)
CONVOY_BESIDE = Metric("convoy_beside", "The same, beside a thread that computes", "ms", 1)
CONVOY_RATIO = Metric("convoy_ratio", "Beside a thread that computes, in times without", "times")
CONVOY_ALONE_CPU = Metric("convoy_alone_cpu", "CPU per delivery, all cores", "µs")
CONVOY_BESIDE_CPU = Metric("convoy_beside_cpu", "CPU per delivery beside that thread, without its own", "µs")
SHARED_CPU = Metric("shared_cpu", "CPU of two workers over Redis per delivery, one by one", "µs")
SHARED_REDIS = Metric("shared_redis_cpu", "CPU of Redis per delivery, two workers, one by one", "µs", 3)
SHARED_LOAD = Metric("shared_load_cpu", "CPU of the load client per delivery, two workers over Redis, one by one", "µs")
SHARED_LAST_P50 = Metric(
    "shared_last_p50", "From the post until the last client has it, two workers over Redis: median", "ms"
)
SHARED_LAST_P99 = Metric(
    "shared_last_p99", "From the post until the last client has it, two workers over Redis: 99th percentile", "ms"
)
SHARED_FEWEST = Metric("shared_fewest", "Clients of that worker of the two that has the fewest", "", 0)
FOREIGN_LISTENERS = Metric(
    "foreign_listeners", "Connections to which Redis announces an event of a channel that no client here reads", "", 0
)
FOREIGN_RATE = Metric("foreign_rate", "Such events published per second", "1/s", 0)
FOREIGN_CPU = Metric("foreign_cpu", "CPU of two workers meanwhile", "% of a core")
FOREIGN_IDLE = Metric("foreign_idle", "CPU of two workers while nothing is published", "% of a core")
FOREIGN_REDIS = Metric("foreign_redis_cpu", "CPU of Redis per such event", "µs", 1)
USERS_EMPTY = Metric("users_empty", "Memory (PSS) of a worker and its arbiter without clients", "MB", 1)
USERS_MEMORY = Metric("users_memory", "Memory (PSS) per idle client with a channel of its own", "bytes", 0)
USERS_MEMORY_REDIS = Metric("users_redis_memory", "Memory of Redis per such channel", "bytes", 0)
USERS_MEMORY_KERNEL = Metric("users_kernel_memory", "Memory of the kernel per connection, one end of it", "bytes", 0)
USERS_CONNECT = Metric("users_connect_cpu", "CPU of the worker per new stream with a channel of its own", "µs", 0)
USERS_CONNECT_REDIS = Metric("users_connect_redis_cpu", "CPU of Redis per new stream", "µs", 1)
USERS_IDLE = Metric("users_idle_cpu", "Idle CPU of the worker, a channel for each client", "% of a core")
USERS_IDLE_REDIS = Metric("users_idle_redis_cpu", "CPU of Redis meanwhile", "% of a core", 3)
USERS_RATE = Metric("users_rate", "Events published per second, a channel for each client", "1/s", 0)
USERS_P50 = Metric("users_p50", "From publishing until the client has it, a channel for each client: median", "ms")
USERS_P99 = Metric(
    "users_p99", "From publishing until the client has it, a channel for each client: 99th percentile", "ms"
)
USERS_MAX = Metric("users_max", "From publishing until the client has it, a channel for each client: slowest", "ms")
USERS_CPU = Metric("users_cpu", "CPU of the worker per event, a channel for each client", "µs", 1)
USERS_REDIS = Metric("users_redis_cpu", "CPU of Redis per event, a channel for each client", "µs", 1)
USERS_PUBLISHER = Metric("users_publisher_cpu", "CPU of the process that publishes, per event", "µs", 1)
USERS_OTHERS = Metric("users_others", "CPU that others took on both cores meanwhile", "% of a core", 0)
USERS_FULL = Metric("users_full_collections", "Full collections of garbage meanwhile", "", 0)
USERS_PAUSE = Metric("users_pause", "CPU time of the longest pause by the garbage collector meanwhile", "ms", 1)
USERS_KEPT = Metric("users_kept", "Memory (PSS) of the worker per event that it keeps", "bytes", 0)
USERS_KEPT_REDIS = Metric("users_kept_redis", "Memory of Redis per event that it keeps", "bytes", 0)
RELOADS = Metric("reloads", "Reloads (SIGHUP) while events go on", "", 0)
RELOAD_EVENTS = Metric(
    "reload_events", "Deliveries meanwhile: each event once, in order, on the same connections", "", 0
)
RELOAD_STEADY = Metric("reload_steady_max", "From publishing until a client has it, no reloads: slowest", "ms", 0)
RELOAD_MAX = Metric("reload_max", "From publishing until a client has it, over reloads: slowest", "ms", 0)
RELOAD_P99 = Metric("reload_p99", "From publishing until a client has it, over reloads: 99th percentile", "ms", 1)
RELOAD_MEMORY = Metric("reload_memory", "Memory (PSS) of the server after these reloads, more than before", "MB", 1)
RELOAD_DESCRIPTORS = Metric("reload_descriptors", "Descriptors of the server after them, more than before", "", 0)
MOVE_CPU = Metric("move_cpu", "CPU of both workers to move one stream", "µs", 0)
MOVE_SECONDS = Metric("move_seconds", "From SIGHUP until the former workers have ended, all streams moved", "s", 1)

SINGLE_PLAIN = Metric("single_plain_cpu", "CPU of a plain view on a new connection", "µs", 0)
SINGLE_CONNECT = Metric("single_connect_cpu", "CPU of a new client of a channel of its own", "µs", 0)
SINGLE_CONNECT_BROKER = Metric("single_connect_broker_cpu", "CPU of the broker for it", "µs", 1)
SINGLE_CONNECT_RATIO = Metric("single_connect_ratio", "New client of a channel of its own / plain view", "times")
SINGLE_EVENT = Metric("single_event_cpu", "CPU of an event taken in, and written to its one reader", "µs", 1)
SINGLE_EVENT_BROKER = Metric("single_event_broker_cpu", "CPU of the broker for it", "µs", 1)
SINGLE_SEND = Metric("single_send_cpu", "CPU of a bare send to one reader", "µs", 1)
SINGLE_RELAY = Metric(
    "single_relay_cpu", "CPU of a bare program that sleeps, receives an event and sends it on", "µs", 1
)
SINGLE_EVENT_RATIO = Metric("single_event_ratio", "Event taken in and written to one reader / bare send", "times")
SINGLE_MEMORY = Metric("single_publish_memory_cpu", "CPU of a publish in memory, nobody listens", "µs", 1)
SINGLE_PUBLISH = Metric("single_publish_cpu", "CPU of a publish to the broker, nobody listens", "µs", 1)
SINGLE_EVALSHA = Metric("single_evalsha_cpu", "CPU of a bare evalsha of the same script", "µs", 1)
SINGLE_PUBLISH_RATIO = Metric("single_publish_ratio", "publish to Redis / bare evalsha", "times")
SINGLE_MANY_RATIO = Metric("single_many_ratio", "publish_many of 100, per event / publish", "times", 3)
SINGLE_POST = Metric("single_post_cpu", "CPU of a POST that does nothing", "µs", 0)
SINGLE_POST_EVENT = Metric("single_post_event_cpu", "CPU of a POST that publishes to one reader", "µs", 0)
SINGLE_POST_BROKER = Metric("single_post_broker_cpu", "CPU of the broker for it", "µs", 1)
SINGLE_POST_PUBLISH = Metric("single_post_publish_cpu", "What publishing to one reader adds to a POST", "µs", 0)
SINGLE_POST_EVALSHA = Metric("single_post_evalsha_cpu", "What a bare evalsha adds to a POST", "µs", 0)
SINGLE_POST_RATIO = Metric(
    "single_post_ratio", "POST: what publishing to one reader adds / what a bare evalsha does", "times"
)
STORM_RATIO = Metric("storm_ratio", "Clients that come back at once, two workers: CPU / that of plain views", "times")
STORM_SECONDS = Metric("storm_seconds", "Until all of them are there", "s", 1)
STORM_PLAIN_SECONDS = Metric("storm_plain_seconds", "Until as many plain views are answered", "s", 1)

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
    CONVOY_ALONE,
    CONVOY_BESIDE,
    CONVOY_RATIO,
    CONVOY_ALONE_CPU,
    CONVOY_BESIDE_CPU,
    SHARED_CPU,
    SHARED_REDIS,
    SHARED_LOAD,
    SHARED_LAST_P50,
    SHARED_LAST_P99,
    SHARED_FEWEST,
    FOREIGN_LISTENERS,
    FOREIGN_RATE,
    FOREIGN_CPU,
    FOREIGN_IDLE,
    FOREIGN_REDIS,
    RELOADS,
    RELOAD_EVENTS,
    RELOAD_STEADY,
    RELOAD_MAX,
    RELOAD_P99,
    RELOAD_MEMORY,
    RELOAD_DESCRIPTORS,
    MOVE_CPU,
    MOVE_SECONDS,
    USERS_EMPTY,
    USERS_MEMORY,
    USERS_MEMORY_REDIS,
    USERS_MEMORY_KERNEL,
    USERS_CONNECT,
    USERS_CONNECT_REDIS,
    USERS_IDLE,
    USERS_IDLE_REDIS,
    USERS_RATE,
    USERS_P50,
    USERS_P99,
    USERS_MAX,
    USERS_CPU,
    USERS_REDIS,
    USERS_PUBLISHER,
    USERS_OTHERS,
    USERS_FULL,
    USERS_PAUSE,
    USERS_KEPT,
    USERS_KEPT_REDIS,
    SINGLE_PLAIN,
    SINGLE_CONNECT,
    SINGLE_CONNECT_BROKER,
    SINGLE_CONNECT_RATIO,
    SINGLE_EVENT,
    SINGLE_EVENT_BROKER,
    SINGLE_SEND,
    SINGLE_RELAY,
    SINGLE_EVENT_RATIO,
    SINGLE_MEMORY,
    SINGLE_PUBLISH,
    SINGLE_EVALSHA,
    SINGLE_PUBLISH_RATIO,
    SINGLE_MANY_RATIO,
    SINGLE_POST,
    SINGLE_POST_EVENT,
    SINGLE_POST_BROKER,
    SINGLE_POST_PUBLISH,
    SINGLE_POST_EVALSHA,
    SINGLE_POST_RATIO,
    STORM_RATIO,
    STORM_SECONDS,
    STORM_PLAIN_SECONDS,
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
