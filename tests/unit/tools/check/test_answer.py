"""``flask sse check`` of answers that come late, in drips, or are no HTTP: the deadlines of one answer."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from flask_sse_emitters.tools.check import Plan, Target, check
from flask_sse_emitters.tools.check.answer import MAX_BYTES, Answer
from tests.support.tiny_server import Request, TinyServer, chunk, head
from tests.support.waiting import PATIENCE
from tests.unit.tools.check.streams import EVENT, FRESH, HURRY, faults, findings, pieces_and_silence


@pytest.mark.usefixtures("step")
def test_check_timeout_for_a_server_that_sends_nothing() -> None:
    found = findings(pieces_and_silence)
    assert faults(found) == ["no-byte"]
    assert found["no-byte"].seen == "Not even headers came in 0.3 s."


def drip(request: Request, begin: bytes, drop: bytes) -> Iterator[bytes]:
    """Send a drop in time each time: a check that waits for each drop alone would wait for ever."""
    yield begin
    while not request.hold(0.05):
        yield drop


@pytest.mark.usefixtures("step")
@pytest.mark.parametrize(
    ("begin", "drop"),
    [(b"HTTP/1.1 200 OK\r\nX: ", b"x"), (b"HT", b"T"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n")],
    ids=["a header", "the status", "many interim answers"],
)
def test_check_timeout_for_headers_that_drip(begin: bytes, drop: bytes) -> None:
    found = findings(lambda request: drip(request, begin, drop))
    assert faults(found) == ["unreachable"]
    assert found["unreachable"].seen == "The headers did not end within 0.3 s."


@pytest.mark.usefixtures("step", "hurry")
@pytest.mark.parametrize(
    ("begin", "drop"),
    [(b"", b"0"), (EVENT, b"0"), (b"0\r\nX: y\r\n", b"X: y\r\n"), (b"ffffff\r\n", b"\n")],
    ids=["the first size", "the second size", "the trailers", "a chunk"],
)
def test_check_timeout_for_a_body_that_drips(begin: bytes, drop: bytes) -> None:
    """An answer that misses its deadline makes the check longer than tests wait."""
    assert findings(lambda request: drip(request, head(FRESH) + begin, drop), seconds=HURRY)["status"].level == "ok"


@pytest.mark.usefixtures("step", "hurry")
def test_check_reads_an_error_body_no_longer_than_it_reports() -> None:
    progress: list[str] = []
    with TinyServer(lambda request: drip(request, head(status="403 Forbidden", kind="text/plain"), b"0")) as server:
        found = check(Plan(Target.of(server.url)), progress.append)
    assert [each.name for each in found] == ["status"]
    assert progress[1:] == ["reading why it is 403, 1 s at most"]


def test_check_bounds_the_memory_for_a_compressed_body() -> None:
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)  # gzip
    blocks = [compressor.compress(bytes(MAX_BYTES)) + compressor.flush(zlib.Z_SYNC_FLUSH) for _ in range(5)]

    pieces = [head(FRESH, "Content-Encoding: gzip"), *map(chunk, blocks)]  # some 4 kB each
    with TinyServer(lambda request: pieces_and_silence(request, *pieces)) as server:
        answer = Answer(Target.of(server.url), {}, lambda _: False, lambda _: PATIENCE)
        answer.await_end()
    assert answer.end == "enough"
    assert len(answer.body) <= 2 * MAX_BYTES


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b""], ids=["not HTTP", "nothing"])
def test_check_reports_an_answer_that_is_no_http(answer: bytes) -> None:
    found = findings(lambda _: iter([answer]))
    assert faults(found) == ["unreachable"]
