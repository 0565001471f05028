"""Fixtures that run a scene under every interleaving."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.concurrency.interleavings import EDGES, LINES, TAKES, Explorer, Scene
from tests.concurrency.stage import TRACED, Every, Stage

#: Preemptions added for a run by hand. One more takes many minutes.
MORE = int(os.environ.get("MORE_PREEMPTIONS", "0"))


@pytest.fixture
def explorer() -> Explorer:
    return Explorer(lines_of=TRACED)


@pytest.fixture
def stage(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(explorer, monkeypatch)


@pytest.fixture
def every(stage: Stage, request: pytest.FixtureRequest) -> Every:
    """Run a scene under every schedule: switch at locks first, then at lines."""

    def play(
        scene: Callable[[], Scene], takes: int | None = None, edges: int | None = 2, lines: int | None = 1
    ) -> None:
        for grain, preemptions in [(TAKES, takes), (EDGES, edges), (LINES, lines)]:
            if grain == LINES and preemptions is None:
                continue
            stage.explorer.grain = grain
            stage.explorer.preemptions = None if preemptions is None else preemptions + MORE
            count = stage.explorer.explore(scene, most=None if MORE else 10_000)
            print(f"{request.node.name}: {count} {grain}, {preemptions}")  # noqa: T201

    return play
