"""Helpers of the tests leave nothing behind that a later test would be blamed for."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.web.tiny_server import TinyServer


def test_client_without_an_answer_leaves_no_descriptor_open() -> None:
    with TinyServer(lambda _: iter(())) as server:
        silent: Any = server
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ConnectionError) as raised:  # which keeps what is not closed, whatever the collector does
            Client(silent, "/")
        assert len(os.listdir("/proc/self/fd")) <= before, raised
