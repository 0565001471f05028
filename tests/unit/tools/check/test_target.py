"""``flask sse check`` of addresses that redirect, or are to be encoded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_sse_emitters.tools.check import Plan, Target, check
from tests.support.tiny_server import END, Request, TinyServer, head
from tests.unit.tools.check.streams import COOKIE, findings_at, good, invoked


@pytest.mark.usefixtures("step")
def test_check_redirects_share_the_timeout_of_one_answer() -> None:
    def slow(request: Request) -> Iterator[bytes]:
        request.hold(0.2)
        yield head("Location: /", status="302 Found")

    with TinyServer(slow) as server:
        found = check(Plan(Target.of(server.url)), lambda _: None)
        assert len(server.requests) <= 2
    assert found[-1].level == "fault"


def test_check_follows_redirects_without_credentials_to_other_origins() -> None:
    with TinyServer(good) as other:

        def answering(request: Request) -> Iterator[bytes]:
            location = f"{other.url}/stream?a=1" if request.path == "/second" else "second"
            yield head(f"Location: {location}", status="307 Temporary Redirect")
            yield END

        with TinyServer(answering) as server:
            found = findings_at(f"{server.url}/first", headers=(COOKIE,))
            assert [request.path for request in server.requests] == ["/first", "/second"]
            assert all(request.headers["cookie"] == "session=1" for request in server.requests)
        assert {request.path for request in other.requests} == {"/stream?a=1"}
        assert not any("cookie" in request.headers for request in other.requests)
    assert found["status"].level == "ok"


def test_check_redirects_in_a_circle_end() -> None:
    with TinyServer(lambda _: iter([head("Location: /", status="302 Found"), END])) as server:
        found = check(Plan(Target.of(server.url)), lambda _: None)
        assert len(server.requests) == 6
    assert [each.name for each in found] == ["redirect"] * 5 + ["status"]
    assert found[-1].level == "fault"


def test_check_encodes_the_address_of_the_request() -> None:
    with TinyServer(lambda _: iter([head(status="404 Not Found"), END])) as server:
        findings_at(f"{server.url}/é vents?channel=a b&x=%20é#part")
        assert server.requests[0].path == "/%C3%A9%20vents?channel=a%20b&x=%20%C3%A9"


def test_check_escapes_control_characters_of_a_redirect() -> None:
    def answering(request: Request) -> Iterator[bytes]:
        location = "http://\x9b2J\x1bc.invalid/"
        yield f"HTTP/1.1 302 F\x1bound\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")

    with TinyServer(answering) as server:
        result = invoked(server.url)
    assert result.exit_code == 1
    for text in (result.stdout, result.stderr):
        assert r"\x9b2j\x1bc.invalid" in text
        assert text.replace("\n", "").isprintable()
