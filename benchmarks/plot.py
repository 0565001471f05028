"""The results as a picture: lines over the number of clients, and bars where there is one number of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .measure import BURST_RATE, DELIVERY_CPU, LATENCY_P99, MEMORY, SHARED_CPU, Metric, Results
from .subjects import SUBJECTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that those who see few can still tell apart (Okabe and Ito).
_COLOURS = {
    "bare": "#7f7f7f",
    "ours-on": "#D55E00",
    "ours-sync": "#8C2D04",
    "ours-gthread": "#FD8D3C",
    "ours-off": "#E69F00",
    "recipe": "#0072B2",
    "flask-sse": "#56B4E9",
    "ours-redis": "#F0E442",
    "sse-starlette": "#009E73",
    "nchan": "#CC79A7",
}

_PANELS = {
    DELIVERY_CPU: "CPU per delivery, one event at a time: µs, less is better",
    LATENCY_P99: "Latency, 99th percentile: ms, less is better",
    BURST_RATE: "Burst of 16 publishers: deliveries per second, more is better",
    MEMORY: "Memory of an idle client: bytes, less is better",
    SHARED_CPU: "CPU per delivery, two workers over Redis: µs, less is better",
}


def draw(results: Results, path: Path) -> bool:
    """A panel for each metric that was measured. False where matplotlib is missing, or there is nothing to draw."""
    panels = [metric for metric in _PANELS if results.clients(metric)]
    try:
        import matplotlib
    except ImportError:
        return False
    if not panels:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "font.size": 10, "axes.axisbelow": True})
    from matplotlib import pyplot

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(6.4 * columns, 4 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, metric in zip(grid.flat, panels, strict=False):
        over_clients = metric in (DELIVERY_CPU, LATENCY_P99) and len(results.clients(metric)) > 1
        (_lines if over_clients else _bars)(axes, metric, results)
        axes.set_title(_PANELS[metric], loc="left", fontsize=10.5, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _lines(axes: Axes, metric: Metric, results: Results) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    counts = results.clients(metric)
    for name in _names(metric, results):
        points = [(count, median) for count in counts if (median := results.median(metric, count, name)) is not None]
        width = 2.4 if name.startswith("ours") else 1.4
        axes.plot(
            *zip(*points, strict=True), color=_COLOURS[name], marker="o", markersize=4, linewidth=width, label=name
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("clients")
    axes.grid(color="#dddddd")


def _bars(axes: Axes, metric: Metric, results: Results) -> None:
    """Each subject with as many clients as it was measured with, at most."""
    names = _names(metric, results)
    for place, name in enumerate(reversed(names)):
        clients = max(count for count in results.clients(metric) if results.values(metric, count, name))
        median = results.median(metric, clients, name)
        assert median is not None
        bar = axes.barh(place, median, color=_COLOURS[name], height=0.7)
        axes.bar_label(bar, [f"{median:,.{metric.digits}f}"], padding=4, fontsize=9)
        axes.text(
            -0.02, place, f"{name}\n{clients:,} clients", transform=axes.get_yaxis_transform(), ha="right", va="center"
        )
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.2)


def _names(metric: Metric, results: Results) -> list[str]:
    return [subject.name for subject in SUBJECTS if subject.name in results.subjects(metric)]
