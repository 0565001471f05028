"""The figures of the benchmarks run from end to end; what they measure here says nothing of speed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import program

ROOT = Path(__file__).parent.parent.parent

#: Of each that serves channels, with the time of the broker apart.
OF_ALL = ["plain_cpu", "connect_cpu", "connect_broker_cpu", "post_cpu", "post_event_cpu", "post_broker_cpu"]

OF_OURS = ["event_cpu", "event_broker_cpu", "publish_cpu", "many_ratio", "send_cpu"]


@pytest.mark.parametrize("subject", ["ours-redis", "ours-postgresql", "flask-sse", "socketio-redis"])
def test_benchmark_single_measures_subject(subject: str) -> None:
    program("redis-server", "redis-server")
    program("postgres", "postgresql")
    figures = figures_of("single", [subject])
    for name in [*OF_ALL, *(OF_OURS if subject.startswith("ours") else [])]:
        assert figures[f"single_{name}"][subject] > 0, name
    assert ("single_publish_ratio" in figures) == (subject == "ours-redis")


def test_benchmark_storm_measures_clients_and_plain_views() -> None:
    program("redis-server", "redis-server")
    figures = figures_of("storm", ["ours-redis"])
    for name in ("storm_ratio", "storm_seconds", "storm_plain_seconds"):
        assert figures[name]["ours-redis"] > 0, name


def test_benchmark_convoy_measures_with_and_without_computing_thread() -> None:
    subjects = ["plain-sends", "ours-sync", "ours-gthread"]
    figures = figures_of("convoy", subjects)
    for subject in subjects:
        for name in ("convoy_alone", "convoy_beside", "convoy_ratio", "convoy_alone_cpu", "convoy_beside_cpu"):
            assert figures[name][subject] > 0, (name, subject)


def test_benchmark_subject_that_lacks_something_is_left_out() -> None:
    with tempfile.TemporaryDirectory() as empty:
        said = run("single", ["nchan"], Path(empty), PATH=empty)
    assert "nchan is left out: not installed: nginx" in said


def figures_of(figure: str, subjects: list[str]) -> dict[str, dict[str, float]]:
    """Run a figure with few clients; return the median of each metric and subject."""
    program("cc", "gcc libc6-dev")
    with tempfile.TemporaryDirectory() as output:
        run(figure, subjects, Path(output))
        results: dict[str, Any] = json.loads((Path(output) / "results.json").read_text())
    return {
        name: {subject: value["median"] for each in metric["clients"].values() for subject, value in each.items()}
        for name, metric in results["figures"].items()
    }


def run(figure: str, subjects: list[str], output: Path, **env: str) -> str:
    """Run a figure of these subjects; return what it has said."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--clients", "50", "--figures", figure]
    output.chmod(0o755)  # PostgreSQL runs as another user, in a folder in it
    process = subprocess.Popen(
        [*command, "--only", ",".join(subjects), "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(output), **env},  # where a run looks for others that it would have to wait for
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said, _ = process.communicate(timeout=150)
    finally:
        process.send_signal(signal.SIGTERM)  # it then stops what it has started
        process.wait()
    assert process.returncode == 0, said
    return said
