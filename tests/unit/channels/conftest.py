"""Boards over the broker in memory, and over one that answers when the test says so."""

from __future__ import annotations

import pytest

from tests.support.board import Board
from tests.unit.channels.held_board import HeldBoard


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def held() -> HeldBoard:
    return HeldBoard()
