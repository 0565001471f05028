"""What a process reports of itself through Redis, and how others read it."""

from __future__ import annotations

import pytest

from flask_sse_emitters.brokers.redis.messages import read_process


@pytest.mark.parametrize("about", [b"[]", b"7", b"no json", b"\xff"])
def test_process_report_of_any_bytes_is_parsed(about: bytes) -> None:
    found = read_process(
        b"id", b"11000", [b"a", b"2", b"!about", about, b"b", b"many", b"!revoked", b"1", b"\xff", b"1"]
    )
    assert found == {"id": "id", "age": 1.0, "channels": {"a": 2, "\ufffd": 1}}
