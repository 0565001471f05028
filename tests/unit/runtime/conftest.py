"""What the scheduler starts."""

from __future__ import annotations

import threading

import pytest

from flask_sse_emitters.runtime.scheduler import SCHEDULER


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that this test starts, without those of the process's own scheduler."""
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def note_and_start(thread: threading.Thread) -> None:
        if thread._target.__self__ is not SCHEDULER:  # type: ignore[attr-defined]
            threads.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note_and_start)
    return threads
