"""``flask sse check`` of when bytes come: buffering, heartbeats, and streams that end. nginx has its own tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flask_sse_emitters.tools.check.answer import Answer, Piece
from flask_sse_emitters.tools.check.timing import judge_body
from tests.support.tiny_server import END, Request, chunk, head
from tests.unit.tools.check.streams import (
    EVENT,
    FRESH,
    HURRY,
    faults,
    findings,
    good,
    header_for,
    opening,
    pieces_and_silence,
)


def silent(request: Request, begin: bytes, **claims: Any) -> Iterator[bytes]:
    """A stream that begins, and then sends nothing."""
    return pieces_and_silence(request, head(header_for(request, **claims), FRESH), begin)


def test_check_finds_no_fault_in_a_good_stream() -> None:
    found = findings(good)
    assert faults(found) == []
    assert found["read-timeout"].level == found["replay"].level == "ok"


@pytest.mark.usefixtures("hurry")
def test_check_notes_what_it_cannot_see_of_another_kind_of_server() -> None:
    found = findings(lambda request: pieces_and_silence(request, head(FRESH), EVENT), seconds=HURRY)
    assert faults(found) == []
    assert {name for name, finding in found.items() if finding.level == "note"} >= {"server", "replay", "read-timeout"}


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "claims",
    [{"comments": 10**9}, {"every": 1e9}, {"heartbeat": "nan"}, {"heartbeat": "inf"}, {"comments": "x"}],
    ids=str,
)
def test_check_ignores_absurd_claims_of_a_server(claims: dict[str, Any]) -> None:
    found = findings(lambda request: good(request, **claims), seconds=HURRY)
    assert faults(found) == []
    assert "server" in found


@pytest.mark.usefixtures("hurry")
def test_check_reports_a_stream_without_a_byte() -> None:
    assert faults(findings(lambda request: pieces_and_silence(request, head(FRESH)), seconds=HURRY)) == ["no-byte"]


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


@pytest.mark.usefixtures("hurry")
def test_check_reports_a_proxy_that_buffers_everything() -> None:
    found = findings(lambda request: silent(request, b"", comments=6, every=0.01), seconds=HURRY)
    assert faults(found) == ["buffered"]
    assert found["buffered"].seen.startswith("Of 6 comments, written over 0.06 s, nothing came in ")


@pytest.mark.usefixtures("hurry")
def test_check_does_not_test_buffering_of_a_process_checked_by_many() -> None:
    found = findings(lambda request: good(request, comments=0))
    assert found["buffered"].seen.startswith("Others are checking this process now")


def test_check_reports_a_stream_that_ends_at_once() -> None:
    found = findings(lambda request: iter([head(header_for(request), FRESH), chunk(b"retry: 3000\n\n"), END]))
    assert faults(found) == ["ended"]
    assert "SSE_MAX_CLIENTS" in found["ended"].fix


def test_check_reports_a_stream_that_is_cut_at_once() -> None:
    found = findings(lambda request: iter([head(header_for(request), FRESH), EVENT]))
    assert faults(found) == ["cut"]


def test_check_reports_a_missing_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_emitters.tools.check.run.SLACK_SECONDS", 0.5)
    monkeypatch.setattr("flask_sse_emitters.tools.check.timing.SLACK_SECONDS", 0.5)

    found = findings(lambda request: silent(request, opening(request), heartbeat=0.2))
    assert faults(found) == ["heartbeat"]
    assert "though the server writes one every 0.2 s" in found["heartbeat"].seen


def test_check_notes_a_stream_without_heartbeats() -> None:
    found = findings(lambda request: silent(request, opening(request), heartbeat=0), seconds=HURRY)
    assert faults(found) == []
    assert found["heartbeat"].level == "note"


def test_check_notes_a_silent_stream_that_ends_in_order() -> None:
    """Its timeout may be that short; a proxy's read timeout cuts."""

    def brief(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, heartbeat=9), FRESH)
        yield opening(request)
        yield request.hold(None if request.is_first else 0.1)
        yield END

    found = findings(brief)
    assert faults(found) == []
    assert found["read-timeout"].seen.startswith("The silent stream ended, in order, after ")


def test_check_reports_a_silent_stream_that_is_cut_without_chunks() -> None:
    def cut(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, heartbeat=9), FRESH).replace(
            b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"
        )
        yield b"event: gap\ndata: {}\n\n" if "last-event-id" in request.headers else b"id: 1\ndata: x\n\n: check 1\n\n"
        yield request.hold(None if request.is_first else 0.1)

    found = findings(cut)
    assert faults(found) == ["read-timeout"]
    assert "while the server writes a heartbeat every 9 s" in found["read-timeout"].seen
