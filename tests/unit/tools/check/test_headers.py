"""``flask sse check`` of statuses and headers: caches, compressors, and HTTP/1.0 of proxies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tiny_server import END, TinyServer, chunk, head
from tests.unit.tools.check.streams import FRESH, faults, findings, good, invoked


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        ("204 No Content", "never comes back"),
        ("401 Unauthorized", "--header 'Authorization: Bearer ...'"),
        ("403 Forbidden", "closed until"),
        ("404 Not Found", "url_prefix"),
        ("500 Internal Server Error", "the app's log"),
        ("502 Bad Gateway", "does gunicorn run"),
        ("503 Service Unavailable", "never comes back"),
        ("418 I'm a teapot", "Only a 200"),
    ],
)
def test_check_reports_another_status_with_its_meaning(status: str, fix: str) -> None:
    found = findings(lambda _: iter([head(status=status, kind="text/plain"), chunk(b"No, thanks\n"), END]))
    assert list(found) == ["status"]
    assert found["status"].seen.startswith(f"The answer is {status}")
    assert fix in found["status"].fix
    if not status.startswith("204"):
        assert found["status"].seen.endswith(": No, thanks")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "text/plain", None])
def test_check_reports_another_content_type(kind: str | None) -> None:
    found = findings(lambda _: iter([head(kind=kind), chunk(b"<!doctype html>"), END]))
    assert faults(found) == ["content-type"]
    assert found["content-type"].seen == f"The Content-Type is {kind or 'missing'}."


def test_check_accepts_a_content_type_with_parameters_in_any_case() -> None:
    kind = "Text/Event-Stream;charset=UTF-8"
    assert findings(lambda request: good(request, kind=kind))["status"].seen == f"200, {kind}"


def test_check_escapes_control_characters_of_status_and_body() -> None:
    with TinyServer(
        lambda _: iter([head(status="404 \x1b[31mred", kind="text/plain"), chunk(b"\x1b]0;owned\x07"), END])
    ) as server:
        result = invoked(server.url)
    assert "\x1b" not in result.output
    assert "404 [31mred" in result.output


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ([FRESH, "Age: 7"], "Age: 7"),
        ([FRESH, "X-Cache: Hit from cloudfront"], "X-Cache: Hit"),
        ([FRESH, "CF-Cache-Status: HIT"], "CF-Cache-Status: HIT"),
        (["Cache-Control: public, max-age=60"], "max-age=60"),
    ],
)
def test_check_reports_a_cache(lines: list[str], seen: str) -> None:
    found = findings(lambda request: good(request, *lines))
    assert faults(found) == ["cached"]
    assert seen in found["cached"].seen


@pytest.mark.parametrize("line", ["Age: 0", "X-Cache: Miss from cloudfront", "CF-Cache-Status: DYNAMIC"])
def test_check_accepts_a_cache_miss(line: str) -> None:
    assert faults(findings(lambda request: good(request, FRESH, line))) == []


def test_check_reports_a_cached_answer_to_another_request() -> None:
    """What a cache has kept has the nonce of another request."""
    found = findings(lambda request: good(request, nonce="0123456789abcdef"))
    assert faults(found) == ["cached"]
    assert "somebody else" in found["cached"].seen


def test_check_notes_a_missing_cache_control() -> None:
    assert findings(lambda request: good(request, "X-Other: header"))["cached"].level == "note"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_check_reports_compression_also_in_an_unreadable_encoding(encoding: str) -> None:
    found = findings(lambda request: good(request, FRESH, f"Content-Encoding: {encoding}"))
    assert "compressed" in faults(found)
    assert encoding in found["compressed"].seen


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"protocol": "HTTP/1.0", "connection": "close"}, ["http-1.0"]),
        ({"protocol": "HTTP/1.0"}, ["http-1.0"]),
        ({"connection": "close"}, ["connection-close"]),
        ({"connection": "keep-alive"}, []),
        ({"connection": "upgrade"}, []),
    ],
)
def test_check_reports_http_1_0_and_connection_close_of_a_proxy(claims: dict[str, Any], expected: list[str]) -> None:
    assert faults(findings(lambda request: good(request, **claims))) == expected
