"""``flask sse check`` of streams with faults that nginx does not make. ``test_nginx.py`` covers those of nginx."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import trustme
from click.testing import Result
from flask import Flask

from flask_sse_emitters import SSE
from flask_sse_emitters.tools.check import Finding, Plan, Target, check
from flask_sse_emitters.tools.check.answer import MAX_BYTES, Answer, speaks_http2
from flask_sse_emitters.tools.check.connection import Unreachable, connect
from tests.support.cli import cli_runner
from tests.support.servers import ROOT
from tests.support.tiny_server import END, Answering, Request, TinyServer, chunk, head
from tests.support.waiting import PATIENCE, until

EVENT = chunk(b"id: 1\ndata: x\n\n")
GAP = chunk(b"event: gap\ndata: {}\n\n")
BEAT = chunk(b":\n\n")
FRESH = "Cache-Control: no-cache"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits: the servers of these tests answer at once."""
    monkeypatch.setattr("flask_sse_emitters.tools.check.run.OBSERVE_SECONDS", 0.3)
    monkeypatch.setattr("flask_sse_emitters.tools.check.run.REPLAY_SECONDS", 0.3)


def header_for(request: Request, **claims: object) -> str:
    """Return the header with which this package's server describes itself."""
    values = {
        "protocol": "HTTP/1.1",
        "connection": "",
        "last-event-id": "no",
        "heartbeat": 0.1,
        "comments": 0,
        "every": 0.1,
    }
    if "last-event-id" in request.headers:
        values["last-event-id"] = "yes"
    values.update({name.replace("_", "-"): value for name, value in claims.items()})
    return f"Sse-Check: {request.nonce}; " + "; ".join(f"{name}={value}" for name, value in values.items())


def good(request: Request, *lines: str, **claims: object) -> Iterator[bytes]:
    """A stream without faults, unless ``lines`` or ``claims`` make some."""
    yield head(header_for(request, **claims), FRESH, *lines)
    yield GAP if "last-event-id" in request.headers else EVENT
    while not request.hold(0.1):
        yield BEAT


def findings(answering: Answering, path: str = "/", **plan: Any) -> dict[str, Finding]:
    with TinyServer(answering) as server:
        return findings_at(server.url + path, **plan)


def findings_at(url: str, headers: tuple[tuple[str, str], ...] = (), **plan: Any) -> dict[str, Finding]:
    """Return the findings by name; the check takes no longer than tests wait."""
    verifies = plan.pop("verifies", True)
    began = time.monotonic()
    found = check(Plan(Target.of(url, headers, verifies=verifies), **{"seconds": 1.0, **plan}), lambda _: None)
    assert time.monotonic() - began < PATIENCE
    names = [each.name for each in found if each.name != "redirect"]
    assert len(set(names)) == len(names)
    for each in found:
        assert each.fix or each.level != "fault", "a fault has a fix"
    return {each.name: each for each in found}


def faults(found: dict[str, Finding]) -> list[str]:
    return [name for name, finding in found.items() if finding.level == "fault"]


def invoked(*arguments: str) -> Result:
    app = Flask(__name__)
    SSE(app)
    return cli_runner(app).invoke(args=["sse", "check", *arguments])


# no answer


def test_check_reports_a_refused_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = findings_at(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert faults(found) == ["unreachable"]
    assert "Connection refused" in found["unreachable"].seen


def test_check_reports_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_address(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    found = findings_at("http://streams.invalid/")
    assert found["unreachable"].seen == "No address is known of streams.invalid: Name or service not known."


def test_check_timeout_for_a_server_that_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_emitters.tools.check.answer.STEP_SECONDS", 0.2)

    def silent(request: Request) -> Iterator[bytes]:
        yield request.hold()

    found = findings(silent)
    assert faults(found) == ["no-byte"]
    assert found["no-byte"].seen == "Not even headers came in 0.2 s."


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the seconds an answer has for its headers, shortened; what is late then has long to report it."""
    monkeypatch.setattr("flask_sse_emitters.tools.check.run.STEP_SECONDS", 0.3)
    monkeypatch.setattr("flask_sse_emitters.tools.check.answer.STEP_SECONDS", 0.3)
    monkeypatch.setattr("flask_sse_emitters.tools.check.answer.GRACE_SECONDS", PATIENCE)
    return 0.3


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


@pytest.mark.usefixtures("step")
@pytest.mark.parametrize(
    ("begin", "drop"),
    [(b"", b"0"), (EVENT, b"0"), (b"0\r\nX: y\r\n", b"X: y\r\n"), (b"ffffff\r\n", b"\n")],
    ids=["the first size", "the second size", "the trailers", "a chunk"],
)
def test_check_timeout_for_a_body_that_drips(begin: bytes, drop: bytes) -> None:
    findings(lambda request: drip(request, head(FRESH) + begin, drop))
    assert not [thread for thread in threading.enumerate() if thread.name == "sse-check"], "each has seen its deadline"


@pytest.mark.usefixtures("step")
def test_check_reads_an_error_body_no_longer_than_it_reports() -> None:
    progress: list[str] = []
    with TinyServer(lambda request: drip(request, head(status="403 Forbidden", kind="text/plain"), b"0")) as server:
        found = check(Plan(Target.of(server.url)), progress.append)
    assert [each.name for each in found] == ["status"]
    assert progress[1:] == ["reading why it is 403, 1 s at most"]


def test_check_bounds_the_memory_for_a_compressed_body() -> None:
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)  # gzip
    blocks = [compressor.compress(bytes(MAX_BYTES)) + compressor.flush(zlib.Z_SYNC_FLUSH) for _ in range(5)]

    def bomb(request: Request) -> Iterator[bytes]:
        yield head(FRESH, "Content-Encoding: gzip")
        yield from map(chunk, blocks)  # some 4 kB each
        yield request.hold()

    with TinyServer(bomb) as server:
        answer = Answer(Target.of(server.url), {}, lambda _: False, lambda _: PATIENCE)
        answer.await_end()
    assert answer.end == "enough"
    assert len(answer.body) <= 2 * MAX_BYTES


@pytest.mark.usefixtures("step")
def test_check_redirects_share_the_timeout_of_one_answer() -> None:
    def slow(request: Request) -> Iterator[bytes]:
        request.hold(0.2)
        yield head("Location: /", status="302 Found")

    with TinyServer(slow) as server:
        found = check(Plan(Target.of(server.url)), lambda _: None)
        assert len(server.requests) <= 2
    assert found[-1].level == "fault"


def test_check_timeout_for_a_tls_handshake_that_drips(step: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        stopped = threading.Event()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")  # a record that comes slowly
                while not stopped.wait(0.2 * step):
                    connection.sendall(b"x")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            found = findings_at(url)
        finally:
            stopped.set()
            thread.join(PATIENCE)
    assert faults(found) == ["tls"]
    assert found["tls"].seen.endswith(" failed: nothing came back in time.")


def test_check_timeout_for_a_slow_name_lookup(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """The system's own lookup may take minutes."""
    goes_on = threading.Event()

    def no_address(*_: object, **__: object) -> None:
        goes_on.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr("flask_sse_emitters.tools.check.answer.GRACE_SECONDS", 0.0)
    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    try:
        found = findings_at("http://streams.invalid/")
        with pytest.raises(Unreachable, match=r"was found in 0\.3 s"):
            speaks_http2(Target.of("https://streams.invalid/"))
    finally:
        goes_on.set()
    assert found["unreachable"].seen == f"No address of streams.invalid was found in {step:g} s."


def test_check_silent_address_leaves_time_for_the_next_one() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, socket.create_server(("127.0.0.1", 0)) as good:
        fill = [socket.socket() for _ in range(8)]
        try:
            for each in fill:  # its queue is full then, and it does not answer
                each.setblocking(False)
                each.connect_ex(silent.getsockname())
            names = [listener.getsockname() for listener in (silent, good)]
            addresses = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", name) for name in names]
            with connect(Target.of("http://streams.invalid/"), addresses, time.monotonic() + 2) as connected:
                assert connected.getpeername() == good.getsockname()
        finally:
            for each in fill:
                each.close()


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b""], ids=["not HTTP", "nothing"])
def test_check_reports_an_answer_that_is_no_http(answer: bytes) -> None:
    found = findings(lambda _: iter([answer]))
    assert faults(found) == ["unreachable"]


# the wrong answer


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
    def shouting(request: Request) -> Iterator[bytes]:
        for piece in good(request):
            yield piece.replace(b"text/event-stream", b"Text/Event-Stream;charset=UTF-8")

    assert findings(shouting)["status"].seen == "200, Text/Event-Stream;charset=UTF-8"


def test_check_escapes_control_characters_of_status_and_body() -> None:
    with TinyServer(
        lambda _: iter([head(status="404 \x1b[31mred", kind="text/plain"), chunk(b"\x1b]0;owned\x07"), END])
    ) as server:
        result = invoked(server.url)
    assert "\x1b" not in result.output
    assert "404 [31mred" in result.output


# streams


def test_check_finds_no_fault_in_a_good_stream() -> None:
    found = findings(good)
    assert faults(found) == []
    assert found["read-timeout"].level == found["replay"].level == "ok"


def test_check_notes_what_it_cannot_see_of_another_kind_of_server() -> None:
    def other(request: Request) -> Iterator[bytes]:
        yield head(FRESH)
        yield EVENT
        yield request.hold()

    found = findings(other)
    assert faults(found) == []
    assert {name for name, finding in found.items() if finding.level == "note"} >= {"server", "replay", "read-timeout"}


@pytest.mark.parametrize(
    "claims",
    [{"comments": 10**9}, {"every": 1e9}, {"heartbeat": "nan"}, {"heartbeat": "inf"}, {"comments": "x"}],
    ids=str,
)
def test_check_ignores_absurd_claims_of_a_server(claims: dict[str, object]) -> None:
    found = findings(lambda request: good(request, **claims))
    assert faults(found) == []
    assert "server" in found


def test_check_reports_a_stream_without_a_byte() -> None:
    def mute(request: Request) -> Iterator[bytes]:
        yield head(FRESH)
        yield request.hold()

    assert faults(findings(mute)) == ["no-byte"]


def test_check_reports_buffered_lumps_of_another_kind_of_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_emitters.tools.check.run.OBSERVE_SECONDS", 3.5)

    def lumpy(request: Request) -> Iterator[bytes]:
        yield head(FRESH)
        yield EVENT
        for _ in range(2):
            yield request.hold(1.2)
            yield chunk(b"data: x\n\n" * 5)
        yield request.hold()

    found = findings(lumpy)
    assert faults(found) == ["buffered"]
    assert found["buffered"].seen.startswith("Bytes come in lumps: 2 times")


def test_check_reports_a_proxy_that_buffers_everything() -> None:
    def hoarding(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, comments=6), FRESH)
        yield request.hold()

    found = findings(hoarding)
    assert faults(found) == ["buffered"]
    assert found["buffered"].seen.startswith("Of 6 comments, written over 0.6 s, nothing came in ")


def test_check_does_not_test_buffering_of_a_process_checked_by_many() -> None:
    assert findings(good)["buffered"].seen.startswith("Others are checking this process now")


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

    def without(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, heartbeat=0.2), FRESH)
        yield GAP if "last-event-id" in request.headers else EVENT
        yield request.hold()

    found = findings(without)
    assert faults(found) == ["heartbeat"]
    assert "though the server writes one every 0.2 s" in found["heartbeat"].seen


def test_check_notes_a_stream_without_heartbeats() -> None:
    def without(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, heartbeat=0), FRESH)
        yield GAP if "last-event-id" in request.headers else EVENT
        yield request.hold()

    found = findings(without, seconds=0.5)
    assert faults(found) == []
    assert found["heartbeat"].level == "note"


def test_check_notes_a_silent_stream_that_ends_in_order() -> None:
    """Its timeout may be that short; a proxy's read timeout cuts."""

    def brief(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, heartbeat=9), FRESH)
        yield GAP if "last-event-id" in request.headers else EVENT
        yield request.hold(None if request.is_first else 0.5)
        yield END

    found = findings(brief, seconds=PATIENCE)
    assert faults(found) == []
    assert found["read-timeout"].seen.startswith("The silent stream ended, in order, after ")


def test_check_reports_a_silent_stream_that_is_cut_without_chunks() -> None:
    def cut(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, heartbeat=9), FRESH).replace(
            b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"
        )
        yield b"event: gap\ndata: {}\n\n" if "last-event-id" in request.headers else b"id: 1\ndata: x\n\n"
        yield request.hold(None if request.is_first else 0.6)

    found = findings(cut, seconds=PATIENCE)
    assert faults(found) == ["read-timeout"]
    assert "while the server writes a heartbeat every 9 s" in found["read-timeout"].seen


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
        yield back if "last-event-id" in request.headers else first
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


# caches, compressors, proxies


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        (["Age: 7"], "Age: 7"),
        (["X-Cache: Hit from cloudfront"], "X-Cache: Hit"),
        (["CF-Cache-Status: HIT"], "CF-Cache-Status: HIT"),
        (["Cache-Control: public, max-age=60"], "max-age=60"),
    ],
)
def test_check_reports_a_cache(lines: list[str], seen: str) -> None:
    def cached(request: Request) -> Iterator[bytes]:
        yield from (
            piece.replace(f"{FRESH}\r\n".encode(), b"") if lines[0].startswith("Cache") else piece
            for piece in good(request, *lines)
        )

    found = findings(cached)
    assert faults(found) == ["cached"]
    assert seen in found["cached"].seen


@pytest.mark.parametrize("line", ["Age: 0", "X-Cache: Miss from cloudfront", "CF-Cache-Status: DYNAMIC"])
def test_check_accepts_a_cache_miss(line: str) -> None:
    assert faults(findings(lambda request: good(request, line))) == []


def test_check_reports_a_cached_answer_to_another_request() -> None:
    """What a cache has kept has the nonce of another request."""

    def kept(request: Request) -> Iterator[bytes]:
        for piece in good(request):
            yield piece.replace(request.nonce.encode(), b"0123456789abcdef")

    found = findings(kept)
    assert faults(found) == ["cached"]
    assert "somebody else" in found["cached"].seen


def test_check_notes_a_missing_cache_control() -> None:
    def without(request: Request) -> Iterator[bytes]:
        for piece in good(request):
            yield piece.replace(f"{FRESH}\r\n".encode(), b"")

    assert findings(without)["cached"].level == "note"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_check_reports_compression_also_in_an_unreadable_encoding(encoding: str) -> None:
    found = findings(lambda request: good(request, f"Content-Encoding: {encoding}"))
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
def test_check_reports_http_1_0_and_connection_close_of_a_proxy(claims: dict[str, str], expected: list[str]) -> None:
    assert faults(findings(lambda request: good(request, **claims))) == expected


# pages of other origins

PAGE = "https://app.example.com"
COOKIE = ("Cookie", "session=1")
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


# redirects


def test_check_follows_redirects_and_sends_no_credentials_to_another_origin() -> None:
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


# TLS


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_check_reports_an_unknown_certificate_unless_insecure(context: ssl.SSLContext) -> None:
    with TinyServer(good, context) as server:
        found = findings_at(server.url)
        assert faults(found) == ["tls"]
        assert "certificate" in found["tls"].seen
        assert "--insecure" in found["tls"].fix
        assert faults(findings_at(server.url, verifies=False)) == []


def test_check_reports_a_server_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_emitters.tools.check.answer.STEP_SECONDS", 0.3)
    with TinyServer(good) as server:
        found = findings_at(server.url.replace("http:", "https:"))
    assert faults(found) == ["tls"]


# the command


def test_check_prints_faults_and_fixes_and_exits_with_1() -> None:
    with TinyServer(lambda request: good(request, "Content-Encoding: br")) as server:
        result = invoked(server.url, "--no-replay")
    assert result.exit_code == 1
    assert "FAULT  compressed" in result.stdout
    assert "gzip off;" in result.stdout
    assert result.stdout.endswith("\n1 fault.\n")
    assert result.stderr.startswith(
        f"- connecting to 127.0.0.1:{server.port}, and waiting for the answer, 10 s at most\n"
    )


def test_check_prints_all_is_well_and_exits_with_0() -> None:
    with TinyServer(good) as server:
        result = invoked(server.url, "--header", "X-Mine: a: b", "--header", "Accept:text/event-stream, */*")
        sent = server.requests[0].headers
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "All is well.")
    assert (sent["x-mine"], sent["accept"]) == ("a: b", "text/event-stream, */*")
    assert sent["host"] == f"127.0.0.1:{server.port}"


def test_check_prints_json() -> None:
    with TinyServer(lambda _: iter([head(status="404 Not Found"), END])) as server:
        result = invoked(server.url, "--json")
    printed = json.loads(result.stdout)
    assert result.exit_code == printed["faults"] == 1
    assert [(each["name"], each["level"]) for each in printed["findings"]] == [("status", "fault")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["example.com/events"], "http:// or https://"),
        (["ftp://example.com/"], "http:// or https://"),
        (["http://"], "and a host"),
        (["http://example.com:x/"], "no address of a stream"),
        (["http://ann:secret@example.com/"], "--header 'Authorization: Basic ...'"),
        (["http://example.com/", "--header", "Authorization"], "no 'Name: value'"),
        (["http://example.com/", "--header", "X: a\r\nY: b"], "no 'Name: value'"),
        (["http://example.com/", "--origin", "example.com"], "no origin of a page"),
        (["http://example.com/", "--origin", "*"], "no origin of a page"),
        (["http://example.com/", "--seconds", "0"], "--seconds"),
        ([], "URL"),
    ],
)
def test_check_invalid_argument_is_a_usage_error(arguments: list[str], expected: str) -> None:
    result = invoked(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert expected in result.stderr


def test_check_encodes_the_address_of_the_request() -> None:
    with TinyServer(lambda _: iter([head(status="404 Not Found"), END])) as server:
        findings_at(f"{server.url}/é vents?channel=a b&x=%20é#part")
        assert server.requests[0].path == "/%C3%A9%20vents?channel=a%20b&x=%20%C3%A9"


def test_check_interrupt_exits_with_130_and_no_traceback() -> None:
    def silent(request: Request) -> Iterator[bytes]:
        yield request.hold()

    with TinyServer(silent) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "tests.apps.cli", "sse", "check", server.url],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: server.requests, "its request")
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
    assert (process.returncode, out) == (130, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith("- connecting to ")


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
