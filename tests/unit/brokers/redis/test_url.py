"""URLs of Redis: what is read from them, and what of them may be shown."""

from __future__ import annotations

import pytest

from flask_sse_emitters.brokers.redis.url import Address


@pytest.mark.parametrize(
    ("url", "shown", "db"),
    [
        ("redis://localhost", "redis://localhost", 0),
        ("rediss://user:secret@redis.example:6380/2?ssl_cert_reqs=none", "rediss://redis.example:6380/2", 2),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock", 1),
        ("redis+sentinel://:secret@a:1,b:2/main/5", "redis+sentinel://a:1,b:2/main/5", 5),
        ("rediss+cluster://:secret@a,b", "rediss+cluster://a,b", 0),
    ],
)
def test_url_is_shown_without_password(url: str, shown: str, db: int) -> None:
    address = Address(url)
    assert (address.shown, address.db) == (shown, db)
