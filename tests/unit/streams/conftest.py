"""Emitters with time held still."""

from __future__ import annotations

from functools import partial

import pytest

from tests.unit.doubles.clock import Make, ManualScheduler, emitter_at


@pytest.fixture
def make(scheduler: ManualScheduler) -> Make:
    return partial(emitter_at, scheduler)
