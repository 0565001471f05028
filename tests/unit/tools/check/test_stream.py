"""What ``flask sse check`` finds of headers, of when bytes come, of replay and CORS. nginx has its own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_sse_emitters.tools.check.answer import Answer, Piece
from flask_sse_emitters.tools.check.timing import judge_body
from tests.support.web.tiny_server import END, Answering, Request, chunk, head
from tests.unit.tools.check.streams import (
    COMMENT,
    COOKIE,
    EVENT,
    FRESH,
    GAP,
    HURRY,
    ends_after,
    faults,
    findings,
    good,
    header_for,
    opening,
    silent_after,
    stream,
)


def test_check_finds_no_fault_in_a_good_stream() -> None:
    found = findings(good)
    assert faults(found) == []
    assert found["read-timeout"].level == found["replay"].level == "ok"


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
    found = findings(ends_after(head(status=status, kind="text/plain"), chunk(b"No, thanks\n"), END))
    assert list(found) == ["status"]
    assert found["status"].seen.startswith(f"The answer is {status}")
    assert fix in found["status"].fix
    if not status.startswith("204"):
        assert found["status"].seen.endswith(": No, thanks")


#: The last block of a stream that ends for good.
FINAL = b"event: ~end\nid: ~end\ndata:\n\n"


def stream_that_ends(*pieces: bytes) -> Answering:
    return lambda request: iter([head(header_for(request), FRESH), *pieces])


def over(request: Request) -> Iterator[bytes]:
    """What this package answers where a stream is over for good, and nothing is left of it."""
    yield head(header_for(request, comments=0), FRESH, status="204 No Content", kind=None)


def over_in_silence(request: Request) -> Iterator[bytes]:
    """A stream that ends for good, later than the check looks at the first one."""
    yield head(header_for(request, heartbeat=9), FRESH)
    yield opening(request)
    yield request.hold(None if request.is_first else 0.1)
    yield chunk(FINAL) + END


def cut_silent_stream(request: Request) -> Iterator[bytes]:
    """A stream without chunks, whose silent copy is cut."""
    chunked = head(header_for(request, heartbeat=9), FRESH)
    yield chunked.replace(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n")
    yield b"event: gap\ndata: {}\n\n" if "last-event-id" in request.headers else b"id: 1\ndata: x\n\n: check 1\n\n"
    yield request.hold(None if request.is_first else 0.1)


def brief(request: Request) -> Iterator[bytes]:
    """A stream that ends in order while it is silent. Its timeout may be that short; a proxy's read timeout cuts."""
    yield head(header_for(request, heartbeat=9), FRESH)
    yield opening(request)
    yield request.hold(None if request.is_first else 0.1)
    yield END


#: What answers, the faults that are found, and what a finding says, after its level.
Case = tuple[Answering, list[str], str, str]

SEEN_AT_ONCE: dict[str, Case] = {
    "HTML": (ends_after(head(kind="text/html; charset=utf-8")), ["content-type"], "content-type", "is text/html; char"),
    "no Content-Type": (ends_after(head(kind=None), END), ["content-type"], "content-type", "Content-Type is missing."),
    "another case": (stream(kind="Text/Event-Stream;charset=UTF-8"), [], "status", "ok: 200, Text/Event-Stream;char"),
    "an age": (stream(FRESH, "Age: 7"), ["cached"], "cached", "Age: 7"),
    "no age": (stream(FRESH, "Age: 0"), [], "status", "ok: 200"),
    "a hit": (stream(FRESH, "X-Cache: Hit from cloudfront"), ["cached"], "cached", "X-Cache: Hit"),
    "a miss": (stream(FRESH, "X-Cache: Miss from cloudfront"), [], "status", "ok: 200"),
    "a hit of Cloudflare": (stream(FRESH, "CF-Cache-Status: HIT"), ["cached"], "cached", "CF-Cache-Status: HIT"),
    "no hit of Cloudflare": (stream(FRESH, "CF-Cache-Status: DYNAMIC"), [], "status", "ok: 200"),
    "a public answer": (stream("Cache-Control: public, max-age=60"), ["cached"], "cached", "max-age=60"),
    "the nonce of another request": (stream(nonce="0123456789abcdef"), ["cached"], "cached", "somebody else"),
    "no Cache-Control": (stream("X-Other: header"), [], "cached", "note: "),
    "HTTP/1.0": (stream(protocol="HTTP/1.0"), ["http-1.0"], "http-1.0", "HTTP/1.0"),
    "HTTP/1.0, closed": (stream(protocol="HTTP/1.0", connection="close"), ["http-1.0"], "http-1.0", "HTTP/1.0"),
    "closed": (stream(connection="close"), ["connection-close"], "connection-close", "close"),
    "kept alive": (stream(connection="keep-alive"), [], "status", "ok: 200"),
    "upgrade": (stream(connection="upgrade"), [], "status", "ok: 200"),
    "ends at once": (stream_that_ends(chunk(b"retry: 3000\n\n"), END), ["ended"], "ended", "SSE_MAX_CLIENTS"),
    "ends for good": (stream_that_ends(EVENT, chunk(FINAL), END), [], "over", "note: The stream ended for good after "),
    "ends for good in time": (stream_that_ends(chunk(FINAL), END), [], "first-byte", "ok: The first byte came after"),
    "is over for good": (over, [], "over", "note: The answer is 204: the stream is over for good"),
    "ends for good in silence": (over_in_silence, [], "read-timeout", "note: The silent stream ended for good after"),
    "is cut at once": (stream_that_ends(EVENT), ["cut"], "cut", ""),
    "ends in silence": (brief, [], "read-timeout", "The silent stream ended, in order, after "),
    "is cut in silence": (
        cut_silent_stream,
        ["read-timeout"],
        "read-timeout",
        "while the server writes a heartbeat every 9 s",
    ),
}


@pytest.mark.parametrize(("answering", "expected", "name", "says"), SEEN_AT_ONCE.values(), ids=SEEN_AT_ONCE)
def test_check_of_a_stream_reports_its_faults(answering: Answering, expected: list[str], name: str, says: str) -> None:
    found = findings(answering)
    assert faults(found) == expected
    assert says in f"{found[name].level}: {found[name].seen} {found[name].fix}"


LATE: dict[str, Case] = {
    "a stream without a byte": (silent_after(head(FRESH)), ["no-byte"], "no-byte", ""),
    "a proxy that buffers all": (
        stream(begin=b"", is_silent=True, comments=6, every=0.01),
        ["buffered"],
        "buffered",
        "Of 6 comments, written over 0.06 s, nothing came in ",
    ),
    "many checks of one process": (stream(comments=0), [], "buffered", "Others are checking this process now"),
    "no heartbeats": (stream(is_silent=True, heartbeat=0), [], "heartbeat", "note: "),
    **{
        f"an absurd claim: {claims}": (stream(**claims), [], "server", "")
        for claims in (
            {"comments": 10**9},
            {"every": 1e9},
            {"heartbeat": "nan"},
            {"heartbeat": "inf"},
            {"comments": "x"},
        )
    },
}


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(("answering", "expected", "name", "says"), LATE.values(), ids=LATE)
def test_check_reports_what_does_not_come_in_time(
    answering: Answering, expected: list[str], name: str, says: str
) -> None:
    found = findings(answering, seconds=HURRY)
    assert faults(found) == expected
    assert says in f"{found[name].level}: {found[name].seen}"


@pytest.mark.parametrize(
    ("says", "seen", "fix"),
    [
        ("by=handoff; server=gunicorn, sync; threads=; why=", "of the server (gunicorn, sync).", ""),
        ("by=thread; server=\x1b[2J; threads=8; why=[Errno 24] \x07", "A thread of the server ([2J, 8 th", "8 streams"),
        ("by=greenlet; server=a; threads=-1; why=b", "A greenlet of the server (a) writes", "--worker-connections"),
        ("by=thread", "A thread of the server () writes it, as long as it is open: .", ""),
        ("by=somebody; server=a; threads=1; why=b", None, None),
        ("\xff", None, None),
    ],
    ids=["handoff", "thread", "greenlet", "incomplete", "unknown", "no text"],
)
def test_check_reports_the_writer_that_a_comment_names(says: str, seen: str | None, fix: str | None) -> None:
    told = chunk(b": written " + says.encode("latin-1") + b"\n: check 1\n\n")
    found = findings(stream(begin=EVENT + told), replay=False)
    assert faults(found) == []
    if seen is None or fix is None:
        assert "writer" not in found
    else:
        assert seen in found["writer"].seen
        assert fix in found["writer"].fix
        assert found["writer"].seen.isprintable()


@pytest.mark.usefixtures("hurry")
def test_check_notes_what_it_cannot_see_of_another_kind_of_server() -> None:
    found = findings(silent_after(head(FRESH), EVENT), seconds=HURRY)
    assert faults(found) == []
    assert {name for name, finding in found.items() if finding.level == "note"} >= {"server", "replay", "read-timeout"}


def test_check_reports_a_missing_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_emitters.tools.check.run.SLACK_SECONDS", 0.5)
    monkeypatch.setattr("flask_sse_emitters.tools.check.timing.SLACK_SECONDS", 0.5)
    found = findings(stream(is_silent=True, heartbeat=0.2))
    assert faults(found) == ["heartbeat"]
    assert "though the server writes one every 0.2 s" in found["heartbeat"].seen


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_check_reports_compression_also_in_an_unreadable_encoding(encoding: str) -> None:
    found = findings(stream(FRESH, f"Content-Encoding: {encoding}"))
    assert "compressed" in faults(found)
    assert encoding in found["compressed"].seen


class RecordedAnswer(Answer):
    """What came from another kind of server, at these seconds after the request."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:  # it sends no request
        self.headers, self.end, self.ended = (), "late", 4.0
        self.pieces = [Piece(at, data) for at, data in pieces]


def test_check_reports_buffered_lumps_of_another_kind_of_server() -> None:
    lump = b"data: x\n\n" * 5
    (found,) = judge_body(RecordedAnswer((0.1, b"data: x\n\n"), (1.3, lump), (2.5, lump)), [])
    assert (found.name, found.level) == ("buffered", "fault")
    assert found.seen.startswith("Bytes come in lumps: 2 times")


RECONNECTS = {
    "ids without a gap": (EVENT, EVENT, "yes", ["replay"]),
    "no ids": (chunk(b"data: x\n\n"), chunk(b"data: x\n\n"), "yes", ["replay"]),
    "the header is lost": (EVENT, EVENT, "no", ["last-event-id"]),
    "a gap": (EVENT, GAP, "yes", []),
}


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(("first", "back", "last_event_id", "expected"), RECONNECTS.values(), ids=RECONNECTS)
def test_check_reconnect_finds_missing_gaps_and_a_lost_last_event_id(
    first: bytes, back: bytes, last_event_id: str, expected: list[str]
) -> None:
    def answering(request: Request) -> Iterator[bytes]:
        if "last-event-id" in request.headers:
            return stream(begin=back, last_event_id=last_event_id)(request)
        return stream(begin=first + COMMENT)(request)

    assert faults(findings(answering)) == expected
    assert faults(findings(answering, replay=False)) == []


def test_check_tolerates_a_refused_second_and_third_stream() -> None:
    refused = ends_after(head(status="429 Too Many Requests"), END)
    found = findings(lambda request: (good if request.is_first else refused)(request))
    assert faults(found) == []
    for name in ("replay", "read-timeout"):
        assert "429 Too Many Requests" in found[name].seen


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
