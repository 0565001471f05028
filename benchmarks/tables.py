"""The tables of both READMEs and of ``docs/servers.rst``, from the stored results: ``... benchmarks.tables --write``.

A row or a cell that a run has not measured is left out; where it lacks one of the workers, ``docs/servers.rst`` stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .processes import ROOT

RESULTS = Path(__file__).parent / "results" / "results.json"
README = ROOT / "README.md"
README_KO = ROOT / "README.ko.md"
SERVERS = ROOT / "docs" / "servers.rst"

#: What stands around a table.
MARKS = {
    ".md": ("<!-- written by python -m benchmarks.tables -->", "<!-- until here -->"),
    ".rst": (".. written by python -m benchmarks.tables", ".. until here"),
}

_ROWS = [
    ("ours-on", "this package, `gevent`", "이 패키지, `gevent`"),
    ("ours-sync", "this package, `sync`, gunicorn's default", "이 패키지, gunicorn의 기본값인 `sync`"),
    ("ours-off", "this package, `gevent`, not handed off", "이 패키지, `gevent`, 소켓을 넘겨받지 않음"),
    ("recipe", "a `queue.Queue` for each client, by hand", "클라이언트마다 `queue.Queue`, 직접 구현"),
    ("flask-sse", "Flask-SSE with Redis", "Redis를 쓰는 Flask-SSE"),
    ("sse-starlette", "sse-starlette on uvicorn, uvloop", "uvicorn, uvloop 위의 sse-starlette"),
    ("nchan", "nginx with nchan, in C", "nchan 모듈을 쓰는 nginx, C로 작성"),
    ("bare", "a bare loop of `send()` in C", "`send()`만 호출하는 반복문, C로 작성"),
]

_HEAD = (
    "µs of CPU per delivery, 1,000 clients",
    "10,000 clients",
    "deliveries/s in a burst, 10,000 clients",
    "kB per idle client",
)
_HEAD_KO = (
    "전달 한 번당 CPU µs, 클라이언트 1,000개",
    "클라이언트 10,000개",
    "버스트 때 초당 전달 수, 클라이언트 10,000개",
    "유휴 클라이언트당 kB",
)

_WORKERS = [
    ("ours-sync", "``sync``, the default", "views are quick"),
    ("ours-gthread", "``gthread``", "views wait for a database or another service, some dozens at once"),
    ("ours-on", "``gevent``", "hundreds of views wait at once, with drivers that gevent can patch"),
]


class Figures:
    """The medians of a run."""

    def __init__(self, path: Path = RESULTS) -> None:
        self._figures: dict[str, Any] = json.loads(path.read_text())["figures"]

    def median(self, metric: str, subject: str, clients: int | None = None) -> float | None:
        """With so many clients; ``None``: with the most that it was measured with."""
        by_count = self._figures.get(metric, {}).get("clients", {})
        counts = [clients] if clients else sorted(map(int, by_count), reverse=True)
        for count in counts:
            if found := by_count.get(str(count), {}).get(subject):
                value: float = found["median"]
                return value
        return None


def readme(figures: Figures, *, korean: bool = False) -> str:
    rows = [["", *(_HEAD_KO if korean else _HEAD)], ["---"] * 5]
    for subject, english, in_korean in _ROWS:
        cells = [
            _cell(figures.median("delivery_cpu", subject, 1_000), "{:.1f}"),
            _cell(figures.median("delivery_cpu", subject, 10_000), "{:.1f}"),
            _cell(figures.median("burst_rate", subject, 10_000), "{:,.0f}"),
            _cell(figures.median("memory", subject), "{:.1f}", 1e-3),
        ]
        if set(cells) != {"-"}:
            rows.append([in_korean if korean else english, *cells])
    head, line, *others = ["|".join(["", *(f" {cell} " if cell else " " for cell in row), ""]) for row in rows]
    return "\n".join([head, line.replace(" ", ""), *others])


def workers(figures: Figures) -> str | None:
    """Which worker to take; ``None`` where one of them was not measured."""
    if any(figures.median("delivery_cpu", subject, 10_000) is None for subject, *_ in _WORKERS):
        return None
    head = [
        "Worker",
        "Take it where",
        "µs of CPU per delivery, 1,000 and 10,000 clients",
        "µs of CPU per new client",
        "kB per idle client",
        "ms that an ordinary request waits during broadcasts to 10,000, 99 %",
    ]
    rows = [head]
    for subject, name, where in _WORKERS:
        each, many = (_cell(figures.median("delivery_cpu", subject, count), "{:.1f}") for count in (1_000, 10_000))
        rows.append(
            [
                name,
                where,
                f"{each}, {many}",
                _cell(figures.median("connect_cpu", subject), "{:.0f}"),
                _cell(figures.median("memory", subject), "{:.1f}", 1e-3),
                _cell(figures.median("ordinary_p99", subject), "{:.1f}"),
            ]
        )
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 15 27 17 12 10 19", ""]
    for row in rows:
        cells = ["\\-" if cell == "-" else cell for cell in row]  # a hyphen alone would begin a list
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(cells)]
    return "\n".join(lines)


def _cell(value: float | None, form: str, times: float = 1.0) -> str:
    return "-" if value is None else form.format(value * times)


#: What each page has.
TABLES: dict[Path, Callable[[Figures], str | None]] = {
    README: readme,
    README_KO: lambda figures: readme(figures, korean=True),
    SERVERS: workers,
}


def written_in(page: Path) -> str:
    begin, end = MARKS[page.suffix]
    return page.read_text().partition(begin)[2].partition(end)[0].strip()


def write(page: Path, table: str) -> None:
    begin, end = MARKS[page.suffix]
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise SystemExit(f"{page} has no place for it")
    page.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="of python -m benchmarks")
    parser.add_argument("--write", action="store_true", help="into the READMEs and docs/servers.rst")
    given = parser.parse_args()
    figures = Figures(given.results)
    for page, make in TABLES.items():
        table = make(figures)
        print(f"{page.relative_to(ROOT)}\n\n{table or 'not all workers were measured'}\n")
        if given.write and table is not None:
            write(page, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
