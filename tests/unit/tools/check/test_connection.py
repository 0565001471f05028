"""``flask sse check`` of addresses without a server: names, connections and TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress

import pytest
import trustme

from flask_sse_emitters.tools.check import Target
from flask_sse_emitters.tools.check.answer import speaks_http2
from flask_sse_emitters.tools.check.connection import Unreachable, connect
from tests.support.tiny_server import TinyServer
from tests.support.waiting import PATIENCE
from tests.unit.tools.check.streams import faults, findings_at, good


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


@pytest.mark.usefixtures("step")
def test_check_reports_a_server_without_tls() -> None:
    with TinyServer(good) as server:
        found = findings_at(server.url.replace("http:", "https:"))
    assert faults(found) == ["tls"]
