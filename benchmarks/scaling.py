"""``python -m benchmarks.scaling``: what many clients need, computed from what was measured.

``docs/scaling.rst`` holds what this prints, and ``--write`` brings it up to date there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from flask_sse_emitters.brokers.listening.presence import COUNT_AFTER, COUNT_EVERY
from flask_sse_emitters.config.settings import DEFAULTS

from .measure import (
    FOREIGN_REDIS,
    SHARED_CPU,
    SHARED_REDIS,
    USERS_CONNECT,
    USERS_CONNECT_REDIS,
    USERS_CPU,
    USERS_EMPTY,
    USERS_IDLE,
    USERS_KEPT,
    USERS_KEPT_REDIS,
    USERS_MEMORY,
    USERS_MEMORY_KERNEL,
    USERS_MEMORY_REDIS,
    USERS_PUBLISHER,
    USERS_REDIS,
    Metric,
)
from .processes import ROOT

RESULTS = Path(__file__).parent / "results" / "redis.json"
PAGE = ROOT / "docs" / "scaling.rst"

#: Around what is written into the page.
BEGIN, END = ".. what follows is printed by python -m benchmarks.scaling", ".. end of what is printed"

SUBJECT = "ours-redis"

#: Ethernet, IP and TCP of one packet, with the TCP option that carries the time.
PACKET = 78

#: An event's id, and the frame of its chunk.
ID_AND_CHUNK = 26

#: A heartbeat is a comment without text, in a chunk.
HEARTBEAT = 8

#: What Redis writes around an event that it announces: the message, a channel's name of 20 bytes, and our own head.
ANNOUNCED = 92


@dataclass(frozen=True)
class Measured:
    """Costs: CPU in microseconds, memory in bytes."""

    worker_bytes: float
    client_bytes: float
    kernel_bytes: float
    kept_bytes: float
    delivery: float
    taken_in: float
    connect: float
    idle: float  #: of one client, a second
    publisher: float
    redis_publish: float
    redis_announce: float
    redis_connect: float
    redis_channel_bytes: float
    redis_kept_bytes: float


@dataclass(frozen=True)
class Assumed:
    """Assumptions, which were not measured: replace them with your own figures."""

    per_worker: int = 15_000
    share: float = 0.6
    event_bytes: int = 100
    stream_seconds: float = DEFAULTS.timeout
    heartbeat: float = DEFAULTS.heartbeat
    retry: float = (DEFAULTS.retry or 0) / 1000
    history: int = DEFAULTS.history
    history_seconds: float = DEFAULTS.history_seconds


@dataclass(frozen=True)
class Use:
    """How channels are used. Each client reads one.

    :ivar readers: of each channel; all clients, where it is 0.
    :ivar rate: events a second in each channel.
    """

    name: str
    readers: int
    rate: float


USES = (Use("own channel", 1, 1 / 60), Use("rooms of 100", 100, 0.1), Use("one for all", 0, 1.0))
CLIENTS = (100_000, 1_000_000)


@dataclass(frozen=True)
class Need:
    """What so many clients need. A process is a worker."""

    channels: int
    events: float
    deliveries: float
    workers_to_hold: int
    workers: int
    cores: float
    publisher_cores: float
    listening: float
    memory: float
    history_memory: float
    kernel_memory: float
    redis_memory: float
    publishes: float
    looks: float
    counts: float
    kept: float
    announcements: float
    redis_cores: float
    redis_servers: int
    redis_again: float
    redis_output: float
    output: float
    walk: float


def need(clients: int, use: Use, costs: Measured, given: Assumed) -> Need:
    readers = min(use.readers or clients, clients)
    channels = math.ceil(clients / readers)
    events = channels * use.rate
    deliveries = clients * use.rate
    connects = clients / given.stream_seconds
    to_hold = workers = math.ceil(clients / given.per_worker)
    while True:
        listening = listening_processes(readers, workers)
        cores = (
            deliveries * costs.delivery
            + events * listening * costs.taken_in
            + connects * costs.connect
            + clients * costs.idle
        ) / 1e6
        if cores <= workers * given.share:
            break
        workers += max(1, round((cores / given.share - workers) / 2))
    kept = channels * min(given.history, use.rate * given.history_seconds)
    looks = connects * first_in_its_process(readers, workers)
    announcements = events * listening
    counts = workers * min(1 / COUNT_AFTER, connects / workers + 1 / COUNT_EVERY)
    redis_cores = (
        (events + counts) * costs.redis_publish  # a count is a script of about that size
        + announcements * costs.redis_announce
        + looks * costs.redis_connect
    ) / 1e6
    return Need(
        channels=channels,
        events=events,
        deliveries=deliveries,
        workers_to_hold=to_hold,
        workers=workers,
        cores=cores,
        publisher_cores=events * costs.publisher / 1e6,
        listening=listening,
        memory=workers * costs.worker_bytes + clients * costs.client_bytes,
        history_memory=kept * listening * costs.kept_bytes,
        kernel_memory=clients * costs.kernel_bytes,
        redis_memory=channels * costs.redis_channel_bytes + kept * costs.redis_kept_bytes,
        publishes=events,
        looks=looks,
        counts=counts,
        kept=kept,
        announcements=announcements,
        redis_cores=redis_cores,
        redis_servers=math.ceil(redis_cores / given.share),
        redis_again=channels * listening * costs.redis_connect / 1e6,
        redis_output=announcements * (given.event_bytes + ANNOUNCED + PACKET) * 8,
        output=(
            deliveries * (given.event_bytes + ID_AND_CHUNK + PACKET) + clients / given.heartbeat * (HEARTBEAT + PACKET)
        )
        * 8,
        walk=readers / listening * costs.delivery / 1e6,
    )


def listening_processes(readers: int, workers: int) -> float:
    """How many of the workers have a reader of a channel, where chance spreads them."""
    return float(workers * -math.expm1(readers * math.log1p(-1 / workers))) if workers > 1 else 1.0


def first_in_its_process(readers: int, workers: int) -> float:
    """How likely no other reader of its channel is in the process that a client comes to."""
    return float((1 - 1 / workers) ** (readers - 1))


def read(path: Path) -> Measured:
    """The medians of a run of ``python -m benchmarks --name redis``."""
    figures = json.loads(path.read_text())["figures"]

    def one(metric: Metric) -> tuple[int, float]:
        by_clients: dict[str, Any] = figures[metric.name]["clients"]
        clients = max(by_clients, key=int)
        return int(clients), float(by_clients[clients][SUBJECT]["median"])

    def of(metric: Metric) -> float:
        return one(metric)[1]

    (shared, shared_redis), (users, idle) = one(SHARED_REDIS), one(USERS_IDLE)
    # Both come one by one, to a Redis that sleeps before each: once announced to two processes, and once to none.
    announce = max(0.0, shared_redis * shared - of(FOREIGN_REDIS)) / 2
    return Measured(
        worker_bytes=of(USERS_EMPTY) * 1e6,
        client_bytes=of(USERS_MEMORY),
        kernel_bytes=of(USERS_MEMORY_KERNEL),
        kept_bytes=of(USERS_KEPT),
        delivery=of(SHARED_CPU),
        taken_in=max(0.0, of(USERS_CPU) - of(SHARED_CPU)),
        connect=of(USERS_CONNECT),
        idle=idle / 100 / users * 1e6,
        publisher=of(USERS_PUBLISHER),
        redis_publish=max(0.0, of(USERS_REDIS) - announce),
        redis_announce=announce,
        redis_connect=of(USERS_CONNECT_REDIS),
        redis_channel_bytes=of(USERS_MEMORY_REDIS),
        redis_kept_bytes=of(USERS_KEPT_REDIS),
    )


# What is printed.


def page(costs: Measured, given: Assumed, uses: Sequence[Use] = USES, clients: Sequence[int] = CLIENTS) -> str:
    parts = [_costs(costs), _assumed(given, uses)]
    for count in clients:
        parts += [_needs(count, uses, costs, given), _storms(count, uses, costs, given)]
    return "\n\n".join(parts)


def _costs(costs: Measured) -> str:
    rows = [
        ("memory of a worker without clients", _bytes(costs.worker_bytes), USERS_EMPTY.name),
        ("memory of a worker per client", _bytes(costs.client_bytes), USERS_MEMORY.name),
        ("memory of the kernel per connection", _bytes(costs.kernel_bytes), USERS_MEMORY_KERNEL.name),
        ("memory of a worker per kept event", _bytes(costs.kept_bytes), USERS_KEPT.name),
        ("memory of Redis per channel", _bytes(costs.redis_channel_bytes), USERS_MEMORY_REDIS.name),
        ("memory of Redis per kept event", _bytes(costs.redis_kept_bytes), USERS_KEPT_REDIS.name),
        ("worker, to deliver an event to one more client", _micro(costs.delivery), SHARED_CPU.name),
        ("worker, to receive an event", _micro(costs.taken_in), f"{USERS_CPU.name} - {SHARED_CPU.name}"),
        ("worker, for a new client", _micro(costs.connect), USERS_CONNECT.name),
        ("worker, for an idle client, each second", _micro(costs.idle), USERS_IDLE.name),
        ("the process that publishes, per event", _micro(costs.publisher), USERS_PUBLISHER.name),
        ("Redis, to publish an event", _micro(costs.redis_publish), f"{USERS_REDIS.name} - to announce it"),
        (
            "Redis, to announce it to one process",
            _micro(costs.redis_announce),
            f"({SHARED_REDIS.name} * clients - {FOREIGN_REDIS.name}) / 2",
        ),
        ("Redis, for a new client", _micro(costs.redis_connect), USERS_CONNECT_REDIS.name),
    ]
    return _titled("Measured, for one of each", _table(["what", "cost", "figure in redis.json"], rows))


def _assumed(given: Assumed, uses: Sequence[Use]) -> str:
    rows = [
        ("clients that a worker holds at most", f"{given.per_worker:,}"),
        ("share of a core that a worker, or Redis, may be busy", f"{given.share:.0%}"),
        ("bytes of an event", f"{given.event_bytes:,}"),
        ("seconds until a client comes back (SSE_TIMEOUT)", f"{given.stream_seconds:,g}"),
        ("seconds between heartbeats (SSE_HEARTBEAT)", f"{given.heartbeat:,g}"),
        ("events kept of each channel (SSE_HISTORY)", f"{given.history:,}"),
        ("seconds for which they are kept (SSE_HISTORY_SECONDS)", f"{given.history_seconds:,g}"),
    ]
    rows += [(f"{use.name}: events a second in each channel", f"{use.rate:.3g}") for use in uses]
    return _titled("Assumed", _table(["what", "value"], rows))


def _needs(clients: int, uses: Sequence[Use], costs: Measured, given: Assumed) -> str:
    needs = [need(clients, use, costs, given) for use in uses]
    lines = {
        "channels": [f"{each.channels:,}" for each in needs],
        "events published per second": [_count(each.events) for each in needs],
        "deliveries per second": [_count(each.deliveries) for each in needs],
        "workers, to hold the connections": [f"{each.workers_to_hold:,}" for each in needs],
        "workers, for all their work": [f"{each.workers:,}" for each in needs],
        "cores that they keep busy": [_count(each.cores) for each in needs],
        "cores of the publishers": [_count(each.publisher_cores) for each in needs],
        "ms for an event to all its clients of a worker": [_count(each.walk * 1e3) for each in needs],
        "events that are kept": [_count(each.kept) for each in needs],
        "memory of the workers": [_bytes(each.memory) for each in needs],
        "memory of their copies of the history": [_bytes(each.history_memory) for each in needs],
        "memory of the kernel for connections": [_bytes(each.kernel_memory) for each in needs],
        "memory of Redis": [_bytes(each.redis_memory) for each in needs],
        "processes that listen to a channel": [_count(each.listening) for each in needs],
        "Redis: publish scripts per second": [_count(each.publishes) for each in needs],
        "Redis: lookups per second": [_count(each.looks) for each in needs],
        "Redis: counts of clients per second": [_count(each.counts) for each in needs],
        "Redis: announcements per second": [_count(each.announcements) for each in needs],
        "Redis: Mbit/s to the workers": [_count(each.redis_output / 1e6) for each in needs],
        "Redis: cores, of which a server uses one": [_count(each.redis_cores) for each in needs],
        "Redis: servers, each at that share": [f"{each.redis_servers:,}" for each in needs],
        "Redis: seconds of CPU when all channels are looked up": [_count(each.redis_again) for each in needs],
        "Mbit/s to the clients": [_count(each.output / 1e6) for each in needs],
    }
    rows = [(line, *cells) for line, cells in lines.items()]
    return _titled(f"{clients:,} clients", _table(["what", *(use.name for use in uses)], rows))


def _storms(clients: int, uses: Sequence[Use], costs: Measured, given: Assumed) -> str:
    """Write the table of a deploy: clients come back in 1.5 times SSE_RETRY, each at the cost of a connect."""
    held = [clients / need(clients, use, costs, given).workers for use in uses]
    span = 1.5 * given.retry
    work = [each * costs.connect / 1e6 for each in held]
    lines = {
        "clients that come back to a worker": [f"{each:,.0f}" for each in held],
        f"per second, in the {span:g} s of SSE_RETRY={given.retry * 1000:g}": [f"{each / span:,.0f}" for each in held],
        "clients that a worker can accept per second": [f"{1e6 / costs.connect:,.0f}" for _ in held],
        "seconds of CPU until all are back": [f"{each:,.1f}" for each in work],
        f"SSE_RETRY at which that is {given.share:.0%} of a core": [
            f"{_up(each / given.share / 1.5 * 1000):,}" for each in work
        ],
    }
    rows = [(line, *cells) for line, cells in lines.items()]
    return _titled(
        f"{clients:,} clients, after a deploy that ends all streams at once",
        _table(["what", *(use.name for use in uses)], rows),
    )


def _up(value: float) -> int:
    return math.ceil(value / 500) * 500


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 or not value else "< 0.01"


def _micro(value: float) -> str:
    return f"{value:,.0f} µs" if value >= 10 else f"{value:.2g} µs"


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:,.0f} {unit}" if value >= 10 * size else f"{value / size:.1f} {unit}"
    return f"{value:,.0f} bytes"


def _titled(title: str, table: str) -> str:
    return f"{title}\n{'~' * len(title)}\n\n{table}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A simple table of reStructuredText."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    top = "  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip()
    return "\n".join([rule, top, rule, *lines, rule])


def printed_in(text: str) -> str:
    """What the page has of this."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def write(path: Path, printed: str) -> None:
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no place for it")
    path.write_text(f"{before}{BEGIN}\n\n{printed}\n\n{END}{after}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--clients", type=_counts, default=CLIENTS, metavar="N,...")
    parser.add_argument("--readers", type=int, help="of each channel, in place of the three uses; with --rate")
    parser.add_argument("--rate", type=float, default=1.0, help="events a second in each channel")
    for field in fields(Assumed):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default, metavar="N"
        )
    parser.add_argument("--results", type=Path, default=RESULTS, help="of python -m benchmarks --name redis")
    parser.add_argument("--write", action="store_true", help=f"into docs/{PAGE.name}")
    return parser.parse_args()


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(count.replace("_", "")) for count in text.split(","))


def main() -> int:
    given = arguments()
    assumed = replace(Assumed(), **{field.name: getattr(given, field.name) for field in fields(Assumed)})
    uses = USES if given.readers is None else (Use(f"{given.readers:,} readers", given.readers, given.rate),)
    printed = page(read(given.results), assumed, uses, given.clients)
    print(printed)
    if given.write:
        write(PAGE, printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
