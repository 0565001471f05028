"""A folder in which workers meet, the link of two, and streams to give away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters.moving.meeting.folder import Folder
from flask_sse_emitters.moving.meeting.link import Link, Listener, connect
from flask_sse_emitters.moving.protocol.stream_record import StreamRecord


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(os.getpid(), str(tmp_path))
    yield folder
    folder.close()


@pytest.fixture
def links(folder: Folder) -> Iterator[tuple[Link, Link]]:
    """The ends of a worker that stops and of one that stays."""
    listener = Listener(folder)
    stops = connect(folder, str(os.getpid()))
    stays = listener.accept()
    assert stops is not None
    assert stays is not None
    yield stops, stays
    for each in (stops, stays, listener):
        each.close()


@pytest.fixture
def record() -> Callable[..., StreamRecord]:
    def make(**given: Any) -> StreamRecord:
        return StreamRecord(**{"is_chunked": True, "born": 1.5, "written": 2.5, **given})

    return make
