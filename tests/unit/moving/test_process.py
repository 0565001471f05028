"""The part of a worker in the move of streams, beside its gunicorn."""

from __future__ import annotations

import errno
import os
from typing import cast
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters.moving.meeting.link import Listener
from flask_sse_emitters.moving.process import Mover


def test_worker_that_can_accept_no_other_says_so_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """It looks many times a second, and nothing but a free descriptor helps."""
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    mover, listener = Mover(), MagicMock(**{"accept.side_effect": [full, full, None, full]})
    mover._listeners.append(cast(Listener, listener))
    said = []
    for _ in range(4):
        mover.look()
        said.append(len(caplog.messages))
    assert said == [1, 1, 1, 2]
    assert "Too many open files" in caplog.text
