"""How long checks wait, for servers that answer at once."""

from __future__ import annotations

import pytest

from flask_sse_emitters.tools.check import answer, run, timing
from tests.support.waiting import PATIENCE
from tests.unit.tools.check.streams import HURRY


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for what comes, and take one comment for a stream that nobody buffers."""
    monkeypatch.setattr(run, "OBSERVE_SECONDS", PATIENCE)
    monkeypatch.setattr(run, "REPLAY_SECONDS", PATIENCE)
    monkeypatch.setattr(timing, "MIN_MOMENTS", 1)


@pytest.fixture
def hurry(_patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for what does not come."""
    monkeypatch.setattr(run, "OBSERVE_SECONDS", HURRY)
    monkeypatch.setattr(run, "REPLAY_SECONDS", HURRY)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the seconds an answer has for its headers, shortened; what is late then has long to report it."""
    monkeypatch.setattr(run, "STEP_SECONDS", HURRY)
    monkeypatch.setattr(answer, "STEP_SECONDS", HURRY)
    monkeypatch.setattr(answer, "GRACE_SECONDS", PATIENCE)
    return HURRY
