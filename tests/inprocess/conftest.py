"""Shared by the tests of one process: a board, and a list of emitters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_sse_emitters import SseEmitters
from tests.support.board import Board


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def emitters() -> Iterator[SseEmitters]:
    emitters = SseEmitters()
    yield emitters
    emitters.complete()
