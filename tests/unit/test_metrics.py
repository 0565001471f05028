"""Metrics of one of several processes: the names of its apps, and when and on which thread they are written."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock
from weakref import WeakSet

import pytest
from prometheus_client import CollectorRegistry

from flask_sse_emitters import metrics
from flask_sse_emitters.metrics import INTERVAL, SseMetrics
from flask_sse_emitters.runtime.scheduler import FIGURES
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


def test_metrics_timer_runs_only_while_figures_change(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = ManualScheduler()
    monkeypatch.setattr(metrics, "SCHEDULER", scheduler)
    monkeypatch.setattr(scheduler, "run", MagicMock(side_effect=scheduler.run))
    board = Board()
    SseMetrics(board.sse, registry=CollectorRegistry())

    def timers_after(intervals: int) -> int:
        for _ in range(intervals):
            scheduler.pass_time(INTERVAL)
            scheduler.run_jobs()
        return len(scheduler.live_timers())

    assert timers_after(0) == 0
    assert board.client.get("/events").status_code == 400
    assert timers_after(0) == 1, "any request may be denied"
    assert timers_after(1) == 0
    board.publish("a", *range(3))
    assert timers_after(0) == 1
    assert timers_after(1) == 1, "figures have changed"
    assert timers_after(1) == 0
    with board.open("a"):
        assert timers_after(20) == 1
    assert timers_after(0) == 1
    assert timers_after(2) == 0
    for call in scheduler.run.call_args_list:  # type: ignore[attr-defined]
        assert call.args[1] == FIGURES, "it may wait for the disk"
