"""What is known of gunicorn's worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flask_sse_emitters import gunicorn
from flask_sse_emitters.server import worker


def test_worker_that_the_hook_was_given_is_known_whoever_handles_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hook its handler of SIGTERM leads to it, which code of the app may have replaced."""
    monkeypatch.setattr(worker, "_noted", None)
    monkeypatch.setattr(gunicorn, "APPS", [])
    assert worker.worker_count() == 1
    gunicorn.post_worker_init(SimpleNamespace(cfg=SimpleNamespace(workers=3)))
    assert worker.worker_count() == 3
