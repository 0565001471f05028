"""Check what processes report of themselves, add it up, and describe it as a text. Pure.

Processes may run another version of this package, which counts differently, and a broker may hold anything.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from .terminal import escape_controls

Process: TypeAlias = Mapping[str, Any]

#: Counts of each process that are shown as one total, besides ``clients``.
SUMMED = ("opened", "refused", "denied", "published", "deliveries", "bytes", "replayed", "gaps", "dropped", "pending")

#: What ``flask sse status --json`` has of these.
_SUMMED_BY_STATUS = ("deliveries", "pending", "dropped", "gaps", "refused")

#: Counts by name: of an outlet, a reason, a channel, a result.
_SUMMED_BY_NAME = ("outlets", "declined", "closed", "channels", "publish")

#: A count is less than this, and not negative.
_COUNT_BOUND = 2**63

#: How many channels a text shows: those with the most clients.
CHANNELS_SHOWN = 20

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

_COLUMNS = ("host", "pid", "up", "clients", "of", "refused", "deliveries", "pending", "dropped", "seen", "")


def check_processes(reports: Iterable[object]) -> list[dict[str, Any]]:
    """Copy the valid parts of each report, and leave out what is no report.

    :param reports: as :meth:`.SSE.processes` returns them.
    """
    return [process for report in reports if (process := _check(report)) is not None]


@dataclass(frozen=True, slots=True)
class Totals:
    """The figures of several processes, added up.

    :ivar numbers: by the names in :data:`SUMMED`.
    """

    processes: int
    clients: int
    numbers: Mapping[str, int]
    outlets: Mapping[str, int]
    declined: Mapping[str, int]
    closed: Mapping[str, int]
    channels: Mapping[str, int]
    publish: Mapping[str, float]


def add_up(processes: Sequence[Process]) -> Totals:
    """Add up the figures of these processes. O(channels).

    :param processes: from :func:`check_processes`, or ``sse.stats()`` of this process.
    """
    return Totals(
        processes=len(processes),
        clients=_sum(processes, "clients"),
        numbers={name: _sum(processes, name) for name in SUMMED},
        **{name: _sum_by_name(processes, name) for name in _SUMMED_BY_NAME},
    )


def summarize(processes: Sequence[Process]) -> dict[str, Any]:
    """Return the totals for JSON; ``warnings`` holds each warning once."""
    totals = add_up(processes)
    return {
        "processes": totals.processes,
        "clients": totals.clients,
        **{name: totals.numbers[name] for name in _SUMMED_BY_STATUS},
        "channels": dict(_most_clients_first(totals)),
        "warnings": list(_count_warnings(processes)),
    }


def describe(processes: Sequence[Process], now: float | None = None) -> str:
    """Describe processes in a text for people, whose control characters are escaped.

    :param processes: from :func:`check_processes`.
    :param now: seconds since 1970, as ``time.time()`` returns them.
    """
    if not processes:
        return "No process has had a stream of a channel in the last seconds."
    now = time.time() if now is None else now
    totals = add_up(processes)
    parts = [_headline(totals), _table([_COLUMNS, *(_row(process, now) for process in _sorted(processes))])]
    channels = _most_clients_first(totals)
    if channels:
        rows = [(name, f"{count:,}") for name, count in channels[:CHANNELS_SHOWN]]
        more = len(channels) - len(rows)
        parts.append(_table([("channel", "clients"), *rows]) + (f"\nand {more:,} more" if more else ""))
    warnings = _count_warnings(processes)
    if warnings:
        lines = (f"warning, of {_processes(count)}: {escape_controls(text)}" for text, count in warnings.items())
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _check(report: object) -> dict[str, Any] | None:
    if not isinstance(report, Mapping) or not isinstance(report.get("id"), str):
        return None
    names = (*SUMMED, "clients", "max_clients", "pid", "since", "age")
    numbers = {name: report[name] for name in names if _is_count(report.get(name))}
    by_name = {key: _check_counts(report[key]) for key in _SUMMED_BY_NAME if isinstance(report.get(key), Mapping)}
    host, broker = report.get("host"), report.get("broker")
    broker = broker if isinstance(broker, Mapping) else {}
    texts = {key: text for key in ("state", "error") if isinstance(text := broker.get(key), str)}
    return {
        "age": 0.0,
        **numbers,
        **by_name,
        **({"host": host} if isinstance(host, str) else {}),
        "id": report["id"],
        "broker": {**texts, "troubles": _check_texts(broker.get("troubles"))},
        "draining": report.get("draining") is True,
        "warnings": _check_texts(report.get("warnings")),
    }


def _check_counts(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: count for name, count in counts.items() if _is_count(count)}


def _check_texts(texts: object) -> list[str]:
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


def _is_count(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < _COUNT_BOUND  # which also excludes NaN


def _sum(processes: Sequence[Process], name: str) -> int:
    return sum(process.get(name, 0) for process in processes)


def _sum_by_name(processes: Sequence[Process], key: str) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    for process in processes:
        for name, count in process.get(key, {}).items():
            sums[name] = sums.get(name, 0) + count
    return sums


def _most_clients_first(totals: Totals) -> list[tuple[str, int]]:
    return sorted(totals.channels.items(), key=itemgetter(1), reverse=True)


def _count_warnings(processes: Sequence[Process]) -> Counter[str]:
    """Count the processes that have each warning, including those about their broker."""
    warnings: Counter[str] = Counter()
    for process in processes:
        warnings.update(set(process.get("warnings", ())))
        broker = process.get("broker", {})
        if broker.get("state") == "degraded":
            warnings[f"the broker is degraded: {broker.get('error', 'no reason is known')}"] += 1
        warnings.update(set(broker.get("troubles", ())))
    return warnings


def _headline(totals: Totals) -> str:
    counts = [_processes(totals.processes), _plural(totals.clients, "client"), _plural(len(totals.channels), "channel")]
    return ", ".join(counts)


def _sorted(processes: Sequence[Process]) -> list[Process]:
    return sorted(processes, key=lambda process: (str(process.get("host", "")), process.get("pid", 0)))


def _row(process: Process, now: float) -> tuple[str, ...]:
    counts = [f"{process.get(name, 0):,}" for name in ("refused", "deliveries", "pending", "dropped")]
    limit = process.get("max_clients")
    return (
        str(process.get("host", "?")),
        str(process.get("pid", "?")),
        _duration(now - process.get("since", now)),
        f"{process.get('clients', 0):,}",
        "?" if limit is None else f"{limit:,}",
        *counts,
        f"{process.get('age', 0.0):.1f} s ago",
        "draining" if process.get("draining") else "",
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Align the first column to the left, and the others to the right."""
    rows = [[escape_controls(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    size, unit = next(((size, unit) for size, unit in _UNITS if whole >= size), _UNITS[-1])
    return f"{whole // size} {unit}"


def _processes(count: int) -> str:
    return f"{count:,} process" + ("" if count == 1 else "es")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
