"""The report of a soak: lines as it runs, verdicts, JSON, and a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.report import machine
from tests.faults.soak.events import Histogram
from tests.faults.soak.findings import Findings, Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEGA = 1e6

#: The columns of the table: heading, and width.
_COLUMNS = (
    ("min", 5),
    ("clients", 7),
    ("left/s", 6),
    ("events/s", 8),
    ("given/s", 8),
    ("p50 ms", 7),
    ("p99 ms", 7),
    ("max ms", 7),
    ("late p99", 8),
    ("MB 0", 7),
    ("MB 1", 7),
    ("Redis", 6),
    ("fds +0", 6),
    ("fds +1", 6),
    ("greens", 7),
    ("CPU %", 6),
    ("of cl.", 6),
    ("load", 5),
)


class Report:
    """The report of a run, in a ``with`` block. Its lines are printed and logged."""

    def __init__(self, plan: Plan, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._plan = plan
        self._path = folder / name
        self._facts = {key: fact for key, fact in machine().items() if not key.endswith("_core")}
        self._rows: list[dict[str, Any]] = []  # of this line of the table
        self._last: dict[str, Any] | None = None  # of the line before

    def __enter__(self) -> Report:
        self._log: TextIO = self._path.with_suffix(".log").open("w")
        self.say(f"seed {self._plan.seed}, warm-up {self._plan.warm_up:g} s: {self._plan}")
        self.say(", ".join(f"{key} {fact}" for key, fact in self._facts.items() if fact is not None))
        self.say()
        self.say("  ".join(heading.rjust(width) for heading, width in _COLUMNS))
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def say(self, text: str = "") -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        self._log.write(f"{text}\n")
        self._log.flush()

    def saw(self, row: dict[str, Any]) -> None:
        """Add a sample; print a line a minute, or for each sample in short runs."""
        if self._last is None:
            self._last = row
            return
        self._rows.append(row)
        if row["at"] - self._last["at"] >= (59.0 if self._plan.judges_trends else 0.5):
            cells = _cells(self._last, self._rows)
            self.say("  ".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)))
            self._last, self._rows = row, []

    def end(self, found: Findings) -> None:
        self.say()
        half, most, slowest = _quantiles(found.latency)
        self.say(
            f"from before an event is published until it is read: median {half} ms, 99 % {most}, slowest {slowest}"
        )
        self.say(f"what clients did: {', '.join(f'{what} {count:,}' for what, count in found.happened.most_common())}")
        for number, more in enumerate(_kinds(found)):
            self.say(f"objects of worker {number}, in the end beside the end of the warm-up: {more}")
        self.say()
        for failure in found.failures[:20]:
            self.say(failure)
        for verdict in found.verdicts:
            self.say(str(verdict))
        self._path.with_suffix(".json").write_text(_as_json(found, self._facts))
        if not draw(found, self._path.with_suffix(".svg")):
            self.say("matplotlib is missing: there is no picture")


def _cells(before: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    last = rows[-1]
    seconds = last["at"] - before["at"]
    latency, late = Histogram(), Histogram()
    for row in rows:
        latency.merge(row["latency"])
        late.merge(row["late"])
    workers = [last["workers"][0], last["workers"][-1]]
    given = sum(worker["deliveries"] for worker in last["workers"]) - sum(
        worker["deliveries"] for worker in before["workers"]
    )
    greenlets = [row["workers"] for row in rows if "greenlets" in row["workers"][0]]
    return [
        f"{last['at'] / 60:.1f}",
        f"{last['present']:,}",
        f"{sum(row['left'] for row in rows) / seconds:.1f}",
        f"{(last['published'] - before['published']) / seconds:.1f}",
        f"{given / seconds:,.0f}",
        *(_quantiles(latency)),
        _ms(late.quantile(0.99)),
        *(f"{worker['private'] / _MEGA:.2f}" for worker in workers),
        f"{last['redis']['private'] / _MEGA:.2f}",
        *(str(worker["descriptors"] - worker["clients"]) for worker in workers),
        "/".join(str(worker["greenlets"]) for worker in greenlets[-1]) if greenlets else "",
        f"{100 * (last['cpu']['workers'] - before['cpu']['workers']) / seconds:.0f}",
        f"{100 * (last['cpu']['clients'] - before['cpu']['clients']) / seconds:.0f}",
        f"{last['load']:.1f}",
    ]


def _quantiles(times: Histogram) -> list[str]:
    return [_ms(times.quantile(0.5)), _ms(times.quantile(0.99)), _ms(times.most)]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def _kinds(found: Findings) -> list[str]:
    """Describe how the numbers of objects changed in each worker."""
    first, *later = found.kinds or [[]]
    lines = []
    for was, now in zip(first, later[-1] if later else first, strict=True):
        changed = {kind: now.get(kind, 0) - was.get(kind, 0) for kind in {*was, *now} if kind in was and kind in now}
        most = sorted(changed.items(), key=lambda item: -abs(item[1]))[:8]
        lines.append(", ".join(f"{kind} {more:+d}" for kind, more in most if more) or "the same")
    return lines


def _as_json(found: Findings, facts: dict[str, Any]) -> str:
    everything = {
        "machine": facts,
        "plan": asdict(found.plan) | {"warm_up": found.plan.warm_up},
        "verdicts": [asdict(verdict) for verdict in found.verdicts],
        "published": found.published,
        "read": found.events,
        "happened": dict(found.happened),
        "failures": found.failures[:20],
        "latency_ms": _quantiles(found.latency),
        "before": found.before,
        "after": found.after,
        "objects": found.kinds,
        "series": _series(found.rows),
    }
    return json.dumps(everything, indent=1, ensure_ascii=False) + "\n"


def _series(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return each column as one line, so that the file is readable."""
    columns: dict[str, list[float | None]] = {}
    for row in rows:
        flat = {key: row[key] for key in ("at", "present", "published", "left")}
        for name, times in (("latency", row["latency"]), ("late", row["late"])):
            for share in (0.5, 0.99):
                flat[f"{name}_p{100 * share:.0f}_ms"] = _rounded(times.quantile(share))
            flat[f"{name}_max_ms"] = _rounded(times.most)
        flat |= {f"redis_{key}": value for key, value in row["redis"].items()}
        flat |= {f"cpu_{key}": value for key, value in row["cpu"].items()}
        for number, worker in enumerate(row["workers"]):
            for key in ("private", "resident", "descriptors", "threads", "clients", "deliveries", "pending"):
                flat[f"worker_{number}_{key}"] = worker[key]
            flat[f"worker_{number}_greenlets"] = worker.get("greenlets")
        for key, value in flat.items():
            columns.setdefault(key, []).append(value)
    return {key: json.dumps(values, separators=(",", ":")) for key, values in columns.items()}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)


def draw(found: Findings, path: Path) -> bool:
    """Draw memory, descriptors, greenlets and latency over time; return False if matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "soak", "font.size": 10, "axes.axisbelow": True})
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, 2, figsize=(12.8, 8), layout="constrained")
    for axes, panel in zip(grid.flat, (_draw_memory, _draw_latency, _draw_descriptors, _draw_greenlets), strict=True):
        panel(axes, found)
        axes.axvspan(0, found.plan.warm_up / 60, color="#eeeeee", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd")
        axes.set_xlabel("minutes")
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


# Colours that are distinct for colour-blind readers as well (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def _draw_memory(axes: Axes, found: Findings) -> None:
    _title(axes, "Private memory, less that at the end of the warm-up: MB")
    lines = {
        f"worker {number}": [row["workers"][number]["private"] for row in found.rows]
        for number in range(found.plan.workers)
    } | {"Redis": [row["redis"]["private"] for row in found.rows]}
    times = _minutes(found)
    settled = next(place for place, at in enumerate(times) if 60 * at >= found.plan.warm_up)
    for colour, (name, values) in zip(_COLOURS, lines.items(), strict=False):
        axes.plot(times, [(value - values[settled]) / _MEGA for value in values], color=colour, lw=1.2, label=name)


def _draw_latency(axes: Axes, found: Findings) -> None:
    _title(axes, "From before an event is published until it is read: ms")
    for colour, name, share in zip(_COLOURS, ("median", "99th percentile", "slowest"), (0.5, 0.99, None), strict=False):
        points = [
            (row["at"] / 60, 1000 * (row["latency"].most if share is None else row["latency"].quantile(share)))
            for row in found.rows
            if row["latency"].most
        ]
        axes.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")


def _draw_descriptors(axes: Axes, found: Findings) -> None:
    _title(axes, "Descriptors beside those of clients")
    for number in range(found.plan.workers):
        values = [row["workers"][number]["descriptors"] - row["workers"][number]["clients"] for row in found.rows]
        axes.plot(_minutes(found), values, color=_COLOURS[number], lw=1.2, label=f"worker {number}")
    axes.set_ylim(bottom=0)


def _draw_greenlets(axes: Axes, found: Findings) -> None:
    _title(axes, "Greenlets, and threads")
    for number in range(found.plan.workers):
        rows = [row for row in found.rows if "greenlets" in row["workers"][number]]
        for key, style in (("greenlets", "-"), ("threads", ":")):
            points = [(row["at"] / 60, row["workers"][number][key]) for row in rows]
            label = f"{key} of worker {number}"
            axes.plot(*zip(*points, strict=True), style, color=_COLOURS[number], lw=1.2, label=label)
    axes.set_ylim(bottom=0)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5, fontweight="bold")


def _minutes(found: Findings) -> list[float]:
    return [row["at"] / 60 for row in found.rows]
