"""What must hold, and whether it does in this run: computed from its medians, with nothing rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .measure import (
    BURST_CPU,
    BURST_RATE,
    CONNECT_CPU,
    CONNECT_RATIO,
    CONVOY_RATIO,
    DELIVERY_CPU,
    FOREIGN_LISTENERS,
    IDLE_CPU,
    MEMORY,
    MOVE_CPU,
    ORDINARY_MAX,
    ORDINARY_P99,
    RELOAD_DESCRIPTORS,
    RELOAD_MAX,
    RELOAD_MEMORY,
    RELOAD_STEADY,
    SHARED_CPU,
    SINGLE_CONNECT_RATIO,
    SINGLE_EVENT_RATIO,
    SINGLE_MANY_RATIO,
    SINGLE_POST_RATIO,
    SINGLE_PUBLISH_RATIO,
    STORM_RATIO,
    STUCK_RATIO,
    USERS_MEMORY,
    USERS_P99,
    USERS_RATE,
    Metric,
    Results,
)


class NotMeasured(Exception):
    """A figure that a target needs is none of this run's."""


@dataclass(frozen=True)
class Target:
    """A value that must be at most, or at least, its limit.

    :ivar asked: the limit in words, where it is compared with something.
    """

    what: str
    value: Callable[[Results], float]
    limit: float
    unit: str = ""
    at_least: bool = False

    def judge(self, results: Results) -> Verdict:
        try:
            value = self.value(results)
        except NotMeasured:
            return Verdict(self, None, None)
        return Verdict(self, value, value >= self.limit if self.at_least else value <= self.limit)


@dataclass(frozen=True)
class Verdict:
    target: Target
    value: float | None
    holds: bool | None

    @property
    def word(self) -> str:
        return "not measured" if self.holds is None else "PASS" if self.holds else "FAIL"


def _of(metric: Metric, clients: int, subject: str) -> Callable[[Results], float]:
    def value(results: Results) -> float:
        median = results.median(metric, clients, subject)
        if median is None:
            raise NotMeasured
        return median

    return value


def _ratio(upper: Callable[[Results], float], lower: Callable[[Results], float]) -> Callable[[Results], float]:
    return lambda results: upper(results) / lower(results)


def _delivery_ratio(clients: int, subject: str, other: str) -> Callable[[Results], float]:
    return _ratio(_of(DELIVERY_CPU, clients, subject), _of(DELIVERY_CPU, clients, other))


def _growth(subject: str) -> Callable[[Results], float]:
    return _ratio(_of(DELIVERY_CPU, 19_000, subject), _of(DELIVERY_CPU, 1_000, subject))


def _beside_gevent(worker: str) -> list[Target]:
    """What the workers of threads may cost, in times of what gevent's costs in the same run."""
    measured = [
        ("CPU per delivery, 1,000 clients", DELIVERY_CPU, 1_000, 1.1),
        ("CPU per delivery, 10,000 clients", DELIVERY_CPU, 10_000, 1.1),
        ("PSS per idle client, 10,000 clients", MEMORY, 10_000, 1.0),
        ("CPU per new stream", CONNECT_CPU, 1_000, 1.0),
    ]
    return [
        Target(
            f"{what}: {worker} / ours-on",
            _ratio(_of(metric, clients, worker), _of(metric, clients, "ours-on")),
            most,
            "x",
        )
        for what, metric, clients, most in measured
    ]


def _burst_at_nchans_70_000(results: Results) -> float:
    """Deliveries per second on a machine on which nchan makes 70,000."""
    return 70_000 * _ratio(_of(BURST_RATE, 10_000, "ours-on"), _of(BURST_RATE, 10_000, "nchan"))(results)


def _of_reloads(subject: str) -> list[Target]:
    """What holds over reloads; a connection that ends, or an event that is missing, ends the run."""

    def beyond_steady(results: Results) -> float:
        return _of(RELOAD_MAX, 10_000, subject)(results) - _of(RELOAD_STEADY, 10_000, subject)(results)

    return [
        Target(f"Slowest delivery over reloads, beyond that without: {subject}", beyond_steady, 1_000, " ms"),
        Target(f"CPU of both workers to move one stream: {subject}", _of(MOVE_CPU, 10_000, subject), 120, " µs"),
        Target(f"PSS over reloads, histories full: {subject}", _of(RELOAD_MEMORY, 10_000, subject), 3, " MB"),
        Target(f"Descriptors over reloads: {subject}", _of(RELOAD_DESCRIPTORS, 10_000, subject), 5),
    ]


TARGETS = [
    Target("CPU per delivery, 10,000 clients: ours-on / bare", _delivery_ratio(10_000, "ours-on", "bare"), 1.25, "x"),
    Target("CPU per delivery, 10,000 clients: ours-on / nchan", _delivery_ratio(10_000, "ours-on", "nchan"), 0.75, "x"),
    Target("CPU per delivery, 1,000 clients: ours-on / bare", _delivery_ratio(1_000, "ours-on", "bare"), 1.5, "x"),
    Target("Growth of it from 1,000 to 19,000: ours-on / bare", _ratio(_growth("ours-on"), _growth("bare")), 1.1, "x"),
    Target(
        "Deliveries/s in the burst, 10,000 clients: ours-on / nchan",
        _ratio(_of(BURST_RATE, 10_000, "ours-on"), _of(BURST_RATE, 10_000, "nchan")),
        6,
        "x",
        at_least=True,
    ),
    Target("The same, where nchan makes 70,000/s", _burst_at_nchans_70_000, 400_000, "/s", at_least=True),
    Target("PSS per idle client, 10,000 clients: ours-on", _of(MEMORY, 10_000, "ours-on"), 2_500, " bytes"),
    Target("CPU per new stream: ours-on / its plain view", _of(CONNECT_RATIO, 1_000, "ours-on"), 1.25, "x"),
    Target("Idle CPU, 10,000 clients, heartbeat 15 s: ours-on", _of(IDLE_CPU, 10_000, "ours-on"), 2, " %"),
    Target(
        "CPU per delivery, 1,000 clients: ours-off / recipe", _delivery_ratio(1_000, "ours-off", "recipe"), 1.0, "x"
    ),
    Target(
        "CPU per delivery in the burst, 1,000 clients: ours-off / recipe",
        _ratio(_of(BURST_CPU, 1_000, "ours-off"), _of(BURST_CPU, 1_000, "recipe")),
        0.5,
        "x",
    ),
    Target("p99 with one stuck client / without: ours-on", _of(STUCK_RATIO, 1_000, "ours-on"), 1.15, "x"),
    Target("An ordinary request during broadcasts to 10,000: ours-on", _of(ORDINARY_MAX, 10_000, "ours-on"), 20, " ms"),
    Target("The same, p99: ours-gthread", _of(ORDINARY_P99, 10_000, "ours-gthread"), 20, " ms"),
    *_beside_gevent("ours-sync"),
    *_beside_gevent("ours-gthread"),
    Target("10,000 have it, beside a thread that computes: ours-sync", _of(CONVOY_RATIO, 10_000, "ours-sync"), 3, "x"),
    Target("10,000 have it, beside one: ours-gthread", _of(CONVOY_RATIO, 10_000, "ours-gthread"), 3, "x"),
    Target("p99 with one stuck client / without: ours-off", _of(STUCK_RATIO, 1_000, "ours-off"), 1.15, "x"),
    Target(
        "CPU per delivery, two workers over Redis: ours-redis / flask-sse",
        _ratio(_of(SHARED_CPU, 1_000, "ours-redis"), _of(SHARED_CPU, 1_000, "flask-sse")),
        0.125,
        "x",
    ),
    Target("Announced to those who do not read it: ours-redis", _of(FOREIGN_LISTENERS, 1_000, "ours-redis"), 0),
    Target("p99 of 15,000 clients with a channel each: ours-redis", _of(USERS_P99, 15_000, "ours-redis"), 50, " ms"),
    Target(
        "Events to them a second, of 2,000: ours-redis",
        _of(USERS_RATE, 15_000, "ours-redis"),
        1_990,
        "/s",
        at_least=True,
    ),
    Target("PSS of such a client while it idles: ours-redis", _of(USERS_MEMORY, 15_000, "ours-redis"), 6_000, " bytes"),
    Target("New client / plain view: ours-memory", _of(SINGLE_CONNECT_RATIO, 5_000, "ours-memory"), 1.3, "x"),
    Target("New client / plain view: ours-redis", _of(SINGLE_CONNECT_RATIO, 5_000, "ours-redis"), 1.5, "x"),
    Target("publish to Redis / bare evalsha", _of(SINGLE_PUBLISH_RATIO, 5_000, "ours-redis"), 1.3, "x"),
    Target("publish_many, per event / publish", _of(SINGLE_MANY_RATIO, 5_000, "ours-redis"), 0.15, "x"),
    Target("Event for one reader / bare send: ours-redis", _of(SINGLE_EVENT_RATIO, 5_000, "ours-redis"), 4, "x"),
    Target("POST: publish / bare evalsha: ours-redis", _of(SINGLE_POST_RATIO, 5_000, "ours-redis"), 1.3, "x"),
    Target("10,000 back at once / plain views: ours-redis", _of(STORM_RATIO, 10_000, "ours-redis"), 1.5, "x"),
    *(
        target
        for channels in ("ours-redis", "ours-memory")
        for kind in ("", "-sync", "-gthread")
        for target in _of_reloads(channels + kind)
    ),
]
