"""What a forked child makes anew."""

from __future__ import annotations

import pytest

from flask_sse_emitters.runtime import fork


def test_failed_reset_in_forked_child_leaves_others_to_be_reset(caplog: pytest.LogCaptureFixture) -> None:
    """Without a fork: the child does no more than this."""
    calls: list[str] = []

    class Owner:
        def __init__(self, name: str) -> None:
            self.name = name

        def reset(self) -> None:
            calls.append(self.name)
            if self.name == "fails":
                raise OSError("no descriptor")

    owners = [Owner("fails"), Owner("follows")]
    resets = dict.fromkeys(owners, Owner.reset)
    fork.reset_all(resets)
    assert calls == ["fails", "follows"]
    assert "could not be reset" in caplog.text
