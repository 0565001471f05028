"""``flask sse check`` of replay, and of pages of other origins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.tiny_server import END, Answering, Request, chunk, head
from tests.unit.tools.check.streams import BEAT, COMMENT, COOKIE, EVENT, FRESH, GAP, faults, findings, good, header_for


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
    first: bytes, back: bytes, claims: dict[str, str], expected: str | None
) -> None:
    def answering(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, **claims), FRESH)
        yield back if "last-event-id" in request.headers else first + COMMENT
        while not request.hold(0.1):
            yield BEAT

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


@pytest.mark.parametrize(
    ("answering", "headers", "expected"),
    [
        (cors(f"Access-Control-Allow-Origin: {PAGE}"), (), []),
        (cors("Access-Control-Allow-Origin: *"), (), []),
        (cors(), (), ["cors"]),
        (cors("Access-Control-Allow-Origin: https://example.com"), (), ["cors"]),
        (cors(f"Access-Control-Allow-Origin: {PAGE}", f"Access-Control-Allow-Origin: {PAGE}"), (), ["cors"]),
        (cors(f"Access-Control-Allow-Origin: {PAGE}, *"), (), ["cors"]),
        (cors(status="403 Forbidden"), (), ["cors"]),
        (cors("Access-Control-Allow-Origin: *"), (COOKIE,), ["cors"]),
        (cors(f"Access-Control-Allow-Origin: {PAGE}"), (COOKIE,), ["cors"]),
        (
            cors(f"Access-Control-Allow-Origin: {PAGE}", "Access-Control-Allow-Credentials: true"),
            (COOKIE,),
            [],
        ),
        (cors(f"Access-Control-Allow-Origin: {PAGE}"), (TOKEN,), ["preflight"]),
        (
            cors(
                f"Access-Control-Allow-Origin: {PAGE}",
                preflight=(
                    f"Access-Control-Allow-Origin: {PAGE}",
                    "Access-Control-Allow-Headers: Accept, authorization",
                ),
            ),
            (TOKEN,),
            [],
        ),
    ],
    ids=[
        "listed",
        "any",
        "missing",
        "another",
        "twice",
        "twice in one",
        "refused",
        "any, with cookies",
        "listed, without credentials",
        "listed, with credentials",
        "a token, not asked about",
        "a token",
    ],
)
def test_check_reports_cors_and_preflight_faults(
    answering: Answering, headers: tuple[tuple[str, str], ...], expected: list[str]
) -> None:
    found = findings(answering, headers=headers, origin=PAGE)
    assert faults(found) == expected
    assert found["cors"].level == ("fault" if "cors" in expected else "ok")
