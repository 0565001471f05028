"""An app whose broker answers when a test says so."""

from __future__ import annotations

from typing import Any

from tests.support.board import Board
from tests.support.brokers.held_broker import HeldBroker


class HeldBoard(Board):
    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.sse._channels().broker = self.broker = HeldBroker()
