"""The READMEs and ``docs/servers.rst`` show what the stored results are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tables import MARKS, README, README_KO, SERVERS, TABLES, Figures, readme, workers, written_in

OURS = {"ours-sync": 1.0, "ours-gthread": 2.0, "ours-on": 3.0}


@pytest.mark.parametrize("page", [README, README_KO, SERVERS], ids=lambda page: page.name)
def test_benchmark_table_equals_stored_results(page: Path) -> None:
    written = written_in(page)
    assert written
    # The table of the workers stays as it is until a run has measured all of them.
    assert written == (TABLES[page](Figures()) or written), "run: python -m benchmarks.tables --write"


def test_benchmark_table_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    figures = made(
        tmp_path, {"delivery_cpu": {"1000": OURS}, "memory": {"1000": {"bare": 65.0}, "10000": {"ours-on": 1_800.0}}}
    )
    assert readme(figures).splitlines()[2:] == [
        "| this package, `gevent` | 3.0 | - | - | 1.8 |",
        "| this package, `sync`, gunicorn's default | 1.0 | - | - | - |",
        "| a bare loop of `send()` in C | - | - | - | 0.1 |",
    ]
    assert workers(figures) is None


def test_benchmark_table_of_workers_has_row_for_each(tmp_path: Path) -> None:
    table = workers(made(tmp_path, {"delivery_cpu": {"1000": OURS, "10000": OURS}, "connect_cpu": {"1000": OURS}}))
    assert table is not None
    assert [
        table.count(f"     - {number:.1f}, {number:.1f}\n     - {number:.0f}\n     - \\-\n") for number in OURS.values()
    ] == [1, 1, 1]


def test_benchmark_pages_have_one_place_for_their_table() -> None:
    for page in TABLES:
        assert [page.read_text().count(mark) for mark in MARKS[page.suffix]] == [1, 1], page


def made(folder: Path, figures: dict[str, dict[str, dict[str, float]]]) -> Figures:
    """Return the figures of a run with these medians, by metric, number of clients and subject."""
    path = folder / "results.json"
    stored = {
        name: {
            "clients": {
                count: {who: {"median": value} for who, value in each.items()} for count, each in counts.items()
            }
        }
        for name, counts in figures.items()
    }
    path.write_text(json.dumps({"figures": stored}))
    return Figures(path)
