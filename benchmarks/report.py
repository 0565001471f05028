"""What a run says in the end: tables, the targets, and the same as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .measure import METRICS, Journal, Metric, Results
from .plan import Plan
from .processes import LOAD_CORE, ROOT, SERVER_CORE
from .subjects import SUBJECTS
from .subjects.postgresql import postgresql_program
from .targets import TARGETS

_PACKAGES = (
    "flask-sse-emitters",
    "Flask",
    "gunicorn",
    "gevent",
    "Flask-SSE",
    "redis",
    "hiredis",
    "psycopg",
    "python-socketio",
    "sse-starlette",
    "uvicorn",
    "uvloop",
)

#: What the others are compared with, in the table of each metric.
_MEASURE = "bare"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    facts: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "server_core": SERVER_CORE,
        "load_core": LOAD_CORE,
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "source": source(),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = None
    facts["nginx"], facts["redis-server"] = _output("nginx", "-v"), _output("redis-server", "--version")
    facts["postgres"] = _output(str(postgresql_program("postgres") or "postgres"), "--version")
    return facts


def source() -> str:
    """What this package's code is, in short: a run whose code changes under it compares nothing."""
    files = sorted((ROOT / "flask_sse_emitters").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str | None:
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def show(results: Results, journal: Journal) -> None:
    for metric in METRICS:
        if results.clients(metric):
            journal.say()
            journal.say(_headline(metric))
            for line in _table(metric, results):
                journal.say(f"  {line}")


def _headline(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def _table(metric: Metric, results: Results) -> list[str]:
    """A row for each subject, a column for each number of clients: median, ratio, and the noise."""
    counts = results.clients(metric)
    names = [subject.name for subject in SUBJECTS if subject.name in results.subjects(metric)]
    rows = [["", *(f"{count:,} clients" for count in counts)]]
    rows += [[name, *(_cell(metric, count, name, results) for count in counts)] for name in names]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(metric: Metric, clients: int, name: str, results: Results) -> str:
    values, median = results.values(metric, clients, name), results.median(metric, clients, name)
    if median is None:
        return "-"
    measure = results.median(metric, clients, _MEASURE)
    ratio = f" {median / measure:5.2f}x" if measure and name != _MEASURE else ""
    noise = f" ({_number(metric, min(values))}..{_number(metric, max(values))})" if len(values) > 1 else ""
    return f"{_number(metric, median):>8}{ratio}{noise}"


def _number(metric: Metric, value: float) -> str:
    return f"{value:,.{metric.digits}f}"


def show_targets(results: Results, journal: Journal) -> None:
    journal.say()
    journal.say("Targets")
    for target in TARGETS:
        verdict = target.judge(results)
        measured = "" if verdict.value is None else f"{verdict.value:,.2f}{target.unit}"
        limit = f"{'>=' if target.at_least else '<='} {target.limit:,g}{target.unit}"
        journal.say(f"  {target.what:<64} {measured:>14}  {limit:<12}  {verdict.word}")


def as_json(results: Results, plan: Plan, runs: int, facts: dict[str, Any]) -> str:
    figures: dict[str, Any] = {}
    for metric in METRICS:
        for clients in results.clients(metric):
            for subject in SUBJECTS:
                values = results.values(metric, clients, subject.name)
                if values:
                    figure = figures.setdefault(
                        metric.name, {"title": metric.title, "unit": metric.unit, "clients": {}}
                    )
                    figure["clients"].setdefault(str(clients), {})[subject.name] = {
                        "median": results.median(metric, clients, subject.name),
                        "min": min(values),
                        "max": max(values),
                        "runs": values,
                    }
    targets = [
        {"what": target.what, "value": verdict.value, "limit": target.limit, "verdict": verdict.word}
        for target, verdict in ((target, target.judge(results)) for target in TARGETS)
    ]
    everything = {"machine": facts, "runs": runs, "plan": asdict(plan), "figures": figures, "targets": targets}
    return json.dumps(everything, indent=2, ensure_ascii=False) + "\n"
