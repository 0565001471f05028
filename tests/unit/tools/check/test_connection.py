"""``flask sse check`` of connections: names, TLS, redirects, and answers that are late, in drips or no HTTP."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import trustme

from flask_sse_emitters.tools.check import Plan, Target, check
from flask_sse_emitters.tools.check.answer import MAX_BYTES, Answer, speaks_http2
from flask_sse_emitters.tools.check.connection import Unreachable, connect
from tests.support.waiting import PATIENCE
from tests.support.web.tiny_server import END, Request, TinyServer, chunk, head
from tests.unit.tools.check.streams import (
    COOKIE,
    EVENT,
    FRESH,
    HURRY,
    ends_after,
    faults,
    findings,
    findings_at,
    good,
    silent_after,
)


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
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        answers = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(8):  # its queue is full then, and it does not answer
            fill = stack.enter_context(socket.socket())
            fill.setblocking(False)
            fill.connect_ex(silent.getsockname())
        names = [listener.getsockname() for listener in (silent, answers)]
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", name) for name in names]
        with connect(Target.of("http://streams.invalid/"), addresses, time.monotonic() + 2) as connected:
            assert connected.getpeername() == answers.getsockname()


def test_check_reports_an_unknown_certificate_unless_insecure() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with TinyServer(good, context) as server:
        found = findings_at(server.url)
        assert faults(found) == ["tls"]
        assert "certificate" in found["tls"].seen
        assert "--insecure" in found["tls"].fix
        assert faults(findings_at(server.url, verifies=False)) == []


@pytest.mark.usefixtures("step")
def test_check_reports_a_server_without_tls() -> None:
    with TinyServer(good) as server:
        found = findings_at(server.url.replace("http:", "https:"))
    assert faults(found) == ["tls"]


# Redirects and addresses.


@pytest.mark.usefixtures("step")
def test_check_redirects_share_the_timeout_of_one_answer() -> None:
    with TinyServer(lambda request: iter([request.hold(0.2), head("Location: /", status="302 Found")])) as server:
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
    with TinyServer(ends_after(head("Location: /", status="302 Found"), END)) as server:
        found = check(Plan(Target.of(server.url)), lambda _: None)
        assert len(server.requests) == 6
    assert [each.name for each in found] == ["redirect"] * 5 + ["status"]
    assert found[-1].level == "fault"


def test_check_encodes_the_address_of_the_request() -> None:
    with TinyServer(ends_after(head(status="404 Not Found"), END)) as server:
        findings_at(f"{server.url}/é vents?channel=a b&x=%20é#part")
        assert server.requests[0].path == "/%C3%A9%20vents?channel=a%20b&x=%20%C3%A9"


# Answers.


@pytest.mark.usefixtures("step")
def test_check_timeout_for_a_server_that_sends_nothing() -> None:
    found = findings(silent_after())
    assert faults(found) == ["no-byte"]
    assert found["no-byte"].seen == "Not even headers came in 0.3 s."


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b""], ids=["not HTTP", "nothing"])
def test_check_reports_an_answer_that_is_no_http(answer: bytes) -> None:
    assert faults(findings(ends_after(answer))) == ["unreachable"]


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
    gzipped = silent_after(head(FRESH, "Content-Encoding: gzip"), *map(chunk, blocks))  # some 4 kB each
    with TinyServer(gzipped) as server:
        answer = Answer(Target.of(server.url), {}, lambda _: False, lambda _: PATIENCE)
        answer.await_end()
    assert answer.end == "enough"
    assert len(answer.body) <= 2 * MAX_BYTES
