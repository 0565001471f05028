"""What the processes of a deployment say of themselves, as a text for people."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .terminal import escape_controls

#: So many channels are shown, those with the most clients.
MOST_CHANNELS_SHOWN = 20

Process: TypeAlias = Mapping[str, Any]

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

_COLUMNS = ("host", "pid", "up", "clients", "deliveries", "pending", "dropped", "seen", "")


def totals(processes: Sequence[Process]) -> dict[str, Any]:
    """What they have together; ``warnings`` are those of any, each once."""
    sums = {
        name: sum(process.get(name, 0) for process in processes)
        for name in ("clients", "deliveries", "pending", "dropped", "gaps", "refused")
    }
    return {
        "processes": len(processes),
        **sums,
        "channels": dict(_channels(processes).most_common()),
        "warnings": list(_warnings(processes)),
    }


def describe(processes: Sequence[Process], now: float | None = None) -> str:
    """
    :param processes: as :meth:`.SSE.processes` gives them.
    :param now: as ``time.time()`` has it.
    """
    if not processes:
        return "No process has had a stream of a channel in the last seconds."
    now = time.time() if now is None else now
    parts = [_summary(processes), _table([_COLUMNS, *(_row(process, now) for process in _sorted(processes))])]
    channels = _channels(processes).most_common()
    if channels:
        rows = [(name, f"{count:,}") for name, count in channels[:MOST_CHANNELS_SHOWN]]
        more = len(channels) - len(rows)
        parts.append(_table([("channel", "clients"), *rows]) + (f"\nand {more:,} more" if more else ""))
    warnings = _warnings(processes)
    if warnings:
        parts.append("\n".join(f"warning, {_of(count)}: {escape_controls(text)}" for text, count in warnings.items()))
    return "\n\n".join(parts)


def _summary(processes: Sequence[Process]) -> str:
    sums = totals(processes)
    said = [_of(len(processes)).removeprefix("of "), _plural(sums["clients"], "client")]
    said.append(_plural(len(sums["channels"]), "channel"))
    return ", ".join(said)


def _sorted(processes: Sequence[Process]) -> list[Process]:
    return sorted(processes, key=lambda process: (str(process.get("host", "")), process.get("pid", 0)))


def _row(process: Process, now: float) -> tuple[str, ...]:
    counts = [f"{process.get(name, 0):,}" for name in ("clients", "deliveries", "pending", "dropped")]
    return (
        str(process.get("host", "?")),
        str(process.get("pid", "?")),
        _duration(now - process.get("since", now)),
        *counts,
        f"{process.get('age', 0.0):.1f} s ago",
        "draining" if process.get("draining") else "",
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    rows = [[escape_controls(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _channels(processes: Sequence[Process]) -> Counter[str]:
    """The clients of each, of all processes."""
    channels: Counter[str] = Counter()
    for process in processes:
        channels.update(process.get("channels", {}))
    return channels


def _warnings(processes: Sequence[Process]) -> Counter[str]:
    """By how many processes have them."""
    warnings: Counter[str] = Counter()
    for process in processes:
        warnings.update(set(process.get("warnings", ())))
        broker = process.get("broker", {})
        if broker.get("state") == "degraded":
            warnings[f"the broker is degraded: {broker.get('error', 'no reason is known')}"] += 1
        warnings.update(set(broker.get("troubles", ())))
    return warnings


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    size, unit = next(((size, unit) for size, unit in _UNITS if whole >= size), _UNITS[-1])
    return f"{whole // size} {unit}"


def _of(count: int) -> str:
    return f"of {count:,} process" + ("" if count == 1 else "es")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
