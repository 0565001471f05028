"""``flask sse check`` of replay, and of pages of other origins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.tiny_server import END, Answering, Request, chunk, head
from tests.unit.tools.check.streams import COMMENT, COOKIE, EVENT, FRESH, GAP, faults, findings, good, header_for


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("first", "back", "claims", "expected"),
    [
        (EVENT, EVENT, {}, "replay"),
        (chunk(b"data: x\n\n"), chunk(b"data: x\n\n"), {}, "replay"),
        (EVENT, EVENT, {"last_event_id": "no"}, "last-event-id"),
        (EVENT, GAP, {}, None),
    ],
    ids=["ids without a gap", "no ids", "the header is lost", "a gap"],
)
def test_check_reconnect_finds_missing_gaps_and_a_lost_last_event_id(
    first: bytes, back: bytes, claims: dict[str, Any], expected: str | None
) -> None:
    def answering(request: Request) -> Iterator[bytes]:
        begin = back if "last-event-id" in request.headers else first + COMMENT
        return good(request, begin=begin, **claims)

    assert faults(findings(answering)) == ([] if expected is None else [expected])
    assert faults(findings(answering, replay=False)) == []


def test_check_tolerates_a_refused_second_and_third_stream() -> None:
    def one_alone(request: Request) -> Iterator[bytes]:
        if request.is_first:
            yield from good(request)
        else:
            yield head(status="429 Too Many Requests")
            yield END

    found = findings(one_alone)
    assert faults(found) == []
    assert "429 Too Many Requests" in found["replay"].seen
    assert "429 Too Many Requests" in found["read-timeout"].seen


PAGE = "https://app.example.com"
LISTED = f"Access-Control-Allow-Origin: {PAGE}"
ANY = "Access-Control-Allow-Origin: *"
TOKEN = ("Authorization", "Bearer 1")


def cors(*lines: str, preflight: tuple[str, ...] = (), status: str = "200 OK") -> Answering:
    def answering(request: Request) -> Iterator[bytes]:
        if request.method == "OPTIONS":
            assert "authorization" not in request.headers, "browsers ask before they send it"
            yield head(*preflight, status="204 No Content", kind=None)
        elif "origin" in request.headers:
            yield head(header_for(request), FRESH, *lines, status=status)
            yield EVENT
        else:
            yield from good(request)

    return answering


CORS: dict[str, tuple[Answering, tuple[tuple[str, str], ...], list[str]]] = {
    "listed": (cors(LISTED), (), []),
    "any": (cors(ANY), (), []),
    "missing": (cors(), (), ["cors"]),
    "another": (cors("Access-Control-Allow-Origin: https://example.com"), (), ["cors"]),
    "twice": (cors(LISTED, LISTED), (), ["cors"]),
    "twice in one": (cors(f"{LISTED}, *"), (), ["cors"]),
    "refused": (cors(status="403 Forbidden"), (), ["cors"]),
    "any, with cookies": (cors(ANY), (COOKIE,), ["cors"]),
    "listed, without credentials": (cors(LISTED), (COOKIE,), ["cors"]),
    "listed, with credentials": (cors(LISTED, "Access-Control-Allow-Credentials: true"), (COOKIE,), []),
    "a token, not asked about": (cors(LISTED), (TOKEN,), ["preflight"]),
    "a token": (cors(LISTED, preflight=(LISTED, "Access-Control-Allow-Headers: Accept, authorization")), (TOKEN,), []),
}


@pytest.mark.parametrize(("answering", "headers", "expected"), CORS.values(), ids=CORS)
def test_check_reports_cors_and_preflight_faults(
    answering: Answering, headers: tuple[tuple[str, str], ...], expected: list[str]
) -> None:
    found = findings(answering, headers=headers, origin=PAGE)
    assert faults(found) == expected
    assert found["cors"].level == ("fault" if "cors" in expected else "ok")
