"""Metrics of one of several processes: the names of its apps, and when and on which thread they are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet

import pytest
from prometheus_client import CollectorRegistry

from flask_sse_emitters import metrics
from flask_sse_emitters.metrics import INTERVAL, SseMetrics
from flask_sse_emitters.runtime.scheduler import CALLBACKS, FIGURES
from tests.support.board import Board
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a multiprocess folder. prometheus_client was started without one here, and keeps its values itself."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(metrics, "_writers", WeakSet())


def test_metrics_of_second_app_in_multiprocess_mode_need_a_prefix() -> None:
    board, other, registry = Board(), Board(), CollectorRegistry()
    SseMetrics(board.sse, registry=registry)
    with pytest.raises(ValueError, match=r'all registries are one: .* prefix="shop_sse"'):
        SseMetrics(other.sse, registry=CollectorRegistry())
    SseMetrics(other.sse, registry=registry, prefix="shop_sse")
    assert registry.get_sample_value("shop_sse_pending") == 0


class PoolScheduler(ManualScheduler):
    """A scheduler that notes in which pools jobs run."""

    def __init__(self) -> None:
        super().__init__()
        self.pools: list[str] = []

    def run(self, job: Callable[[], object], pool: str = CALLBACKS) -> None:
        self.pools.append(pool)
        super().run(job, pool)


def test_metrics_timer_runs_only_while_figures_change(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = PoolScheduler()
    monkeypatch.setattr(metrics, "SCHEDULER", scheduler)
    board = Board()
    SseMetrics(board.sse, registry=CollectorRegistry())

    def timers() -> int:
        return len(scheduler.live_timers())

    def pass_intervals(count: int) -> None:
        for _ in range(count):
            scheduler.pass_time(INTERVAL)
            scheduler.run_jobs()

    assert timers() == 0
    assert board.client.get("/events").status_code == 400
    assert timers() == 1, "any request may be denied"
    pass_intervals(1)
    assert timers() == 0
    board.publish("a", *range(3))
    assert timers() == 1
    pass_intervals(1)
    assert timers() == 1, "figures have changed"
    pass_intervals(1)
    assert timers() == 0
    with board.open("a"):
        pass_intervals(20)
        assert timers() == 1
    assert timers() == 1
    pass_intervals(2)
    assert timers() == 0
    assert set(scheduler.pools) == {FIGURES}, "it may wait for the disk"
