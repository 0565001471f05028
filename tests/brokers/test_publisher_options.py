"""URLs and options of Publisher that are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters import Publisher
from flask_sse_emitters.brokers import GROUP


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (None, "must be a URL such as redis://localhost:6379/0, not None"),
        (b"redis://localhost", "must be a URL"),
        ("", "must be a URL"),
        ("localhost:6379", "must be a URL such as redis://localhost:6379/0, not 'localhost:6379'"),
        ("redis:localhost", "must be a URL"),
        ("://localhost", "no broker is known for"),
        ("http://localhost", "no broker is known for 'http': known schemes are .*redis, "),
        ("redis://localhost:port", "'port': give a URL such as redis://localhost:6379/0"),
        ("redis://localhost:99999", "0-65535: give a URL such as"),
        ("redis://[::1", "Invalid IPv6 URL"),
        ("redis://localhost/orders", "the path is the number of a database, not 'orders'"),
        ("redis://localhost/-1", "the path is the number of a database, not '-1'"),
        ("redis://localhost?db=one", "'db'.*: give a URL such as"),
        ("redis://localhost?socket_timeout=soon", "'socket_timeout'.*: give a URL such as"),
        ("redis+sentinel://localhost", "lacks the name of the service: /mymaster"),
        ("redis+cluster://localhost/1", "a cluster has no databases"),
        ("redis+cluster://", "is not host:port"),
    ],
)
def test_publisher_url_that_is_invalid_raises_with_advice(url: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=f"^url.*{advice}"):
        Publisher(url)


def test_publisher_url_error_hides_password() -> None:
    with pytest.raises(ValueError, match="not 'localhost'") as caught:
        Publisher("user:secret@localhost")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["memory", "alone"])
def test_publisher_url_of_broker_that_is_not_shared_is_refused(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events would reach no subscriber."""
    metadata = tmp_path / "alone-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: alone\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nalone = {Alone.__module__}:Alone\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(
        ValueError, match=f"^url: what is published to {scheme}:// .*give the SSE_BROKER_URL of the app"
    ):
        Publisher(f"{scheme}://")


class Alone:
    """A broker of a third party."""

    is_shared = False

    def __init__(self, url: str) -> None:
        pass


@pytest.mark.parametrize(
    ("option", "value", "accepts"),
    [
        ("prefix", "", "1 to 100 ASCII letters"),
        ("prefix", "two words", "1 to 100 ASCII letters"),
        ("prefix", None, "1 to 100 ASCII letters"),
        ("publish_seconds", 0, "more than 0"),
        ("publish_seconds", -1.0, "more than 0"),
        ("publish_seconds", "2", "seconds as a number or a timedelta"),
        ("publish_seconds", float("inf"), "seconds as a number or a timedelta"),
    ],
)
def test_publisher_option_that_is_invalid_raises_and_is_named(option: str, value: Any, accepts: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be .*{accepts}"):
        Publisher("redis://localhost", **{option: value})
