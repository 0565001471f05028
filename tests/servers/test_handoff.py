"""Hand-off: which streams are handed off, and what happens to those. ``test_contract.py`` covers all streams."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from packaging.version import Version

from flask_sse_emitters.testing import EventDecoder, decode
from flask_sse_emitters.writers.handoff import Facts, why_not
from flask_sse_emitters.writers.socket_writer import LINGER_SECONDS
from tests.support.client import Client, answer_to_the_end, connected, ended, get, new_name, post, state
from tests.support.servers import GUNICORN, Server
from tests.support.waiting import PATIENCE, until

YES = Facts(
    mode="auto",
    is_gevent_worker=True,
    has_tls=False,
    is_http2=False,
    is_uwsgi=False,
    hangups_show=True,
    is_own_body=True,
    is_own_iteration=True,
    is_own_start_response=True,
    is_begun=True,
)
OBSTACLES: dict[str, dict[str, Any]] = {
    "SSE_HANDOFF is off": {"mode": "off"},
    "the server is not gunicorn with its gevent worker": {"is_gevent_worker": False},
    "the worker itself does TLS": {"has_tls": True},
    "the client speaks HTTP/2": {"is_http2": True},
    "the worker speaks uwsgi": {"is_uwsgi": True},
    "this system does not tell when a client leaves": {"hangups_show": False},
    "the app has put another body around the stream": {"is_own_body": False},
    "the response has a Content-Length, or has not begun": {"is_begun": False},
}
MIDDLEWARE: dict[str, dict[str, Any]] = {
    "a middleware has replaced start_response": {"is_own_start_response": False},
    "a middleware iterates over the stream": {"is_own_iteration": False},
}


def test_handoff_happens_where_no_obstacle_is_found() -> None:
    assert why_not(YES) is None
    assert why_not(replace(YES, mode="on")) is None


@pytest.mark.parametrize("reason", OBSTACLES)
def test_handoff_obstacle_holds_in_mode_on_too(reason: str) -> None:
    facts = replace(YES, **OBSTACLES[reason])
    assert why_not(facts) == reason
    assert why_not(facts if facts.mode == "off" else replace(facts, mode="on")) == reason


@pytest.mark.parametrize("reason", MIDDLEWARE)
def test_handoff_obstacle_of_a_middleware_is_overruled_by_mode_on(reason: str) -> None:
    facts = replace(YES, **MIDDLEWARE[reason])
    assert why_not(facts) == reason
    assert why_not(replace(facts, mode="on")) is None


def serving(kind: str = "gevent", middleware: str = "", mode: str = "", arguments: Sequence[str] = ()) -> Server:
    env = {"MIDDLEWARE": middleware, **({"SSE_HANDOFF": mode} if mode else {})}
    return Server(kind, "tests.apps.handoff:app", env=env, arguments=arguments)


def writer_of(server: Server, name: str) -> str:
    """Return the writer of a stream, once it is decided: its client may read the first bytes before."""
    until(lambda: state(server, name)["idle"], "the stream to wait for events")
    found: str = state(server, name)["writer"]
    return found


@pytest.mark.parametrize(
    ("kind", "mode", "reason"),
    [
        ("gthread", "", "the server is not gunicorn with its gevent worker"),
        ("gevent_pywsgi", "", "the server is not gunicorn with its gevent worker"),
        ("werkzeug", "", "the server is not gunicorn with its gevent worker"),
        ("gevent", "off", "SSE_HANDOFF is off"),
    ],
)
def test_handoff_is_refused_on_other_servers_or_if_off_and_logged_once(kind: str, mode: str, reason: str) -> None:
    with serving(kind, mode=mode) as server:
        for _ in range(2):
            name = new_name()
            with connected(server, f"/numbered/{name}") as client:
                assert len(client.events(3)) == 3
                assert writer_of(server, name) == "ResponseBody"
        assert server.log.count(reason) == 1, "the reason is logged once"


def test_handoff_is_refused_for_a_response_with_a_content_length() -> None:
    with serving() as server:
        name = new_name()
        with connected(server, f"/promising/{name}") as client:
            assert client.response.getheader("Content-Length") == "1000"
            assert writer_of(server, name) == "ResponseBody"


@pytest.mark.parametrize(
    ("middleware", "reason"),
    [
        ("gzip", "a middleware iterates over the stream"),
        ("compressing", "the app has put another body around the stream"),
    ],
)
def test_handoff_is_refused_behind_compression_and_every_event_is_decoded(middleware: str, reason: str) -> None:
    with serving(middleware=middleware) as server:
        name = new_name()
        with connected(server, f"/numbered/{name}", headers={"Accept-Encoding": "gzip"}) as client:
            assert client.response.getheader("Content-Encoding") == "gzip"
            assert client.response.getheader("Connection") == "close"
            until(lambda: "writer" in state(server, name), "the stream")
            post(server, f"/send/{name}", "more")
            post(server, f"/complete/{name}")
            texts = [event.data for event in decode(gzip.decompress(client.rest()))]
        assert texts == ["0", "1", "2", "more"]
        assert reason in server.log


@pytest.mark.parametrize("middleware", ["shouting", "shouting in C"])
def test_handoff_is_refused_behind_a_middleware_that_changes_the_bytes(middleware: str) -> None:
    with serving(middleware=middleware) as server:
        name = new_name()
        with connected(server, f"/numbered/{name}") as client:
            client.read_some()
            assert client.response.getheader("Connection") == "close"
            assert writer_of(server, name) == "ResponseBody"
            post(server, f"/send/{name}", "louder")
            post(server, f"/complete/{name}")
            assert b"DATA: LOUDER\n\n" in client.rest()
        assert "a middleware iterates over the stream" in server.log


@pytest.mark.parametrize(("middleware", "saw"), [("tracing", "GET"), ("reporting", "transaction")])
def test_handoff_on_hands_off_behind_a_middleware_that_only_observes(middleware: str, saw: str) -> None:
    with serving(middleware=middleware, mode="on") as server:
        name = new_name()
        with connected(server, f"/numbered/{name}?list=all") as client:
            assert len(client.events(3)) == 3
            assert client.response.getheader("Connection") == "close"
            assert writer_of(server, name) == "SocketWriter"
            post(server, f"/send/{name}", "to one")
            post(server, "/lists/all/send", "to all")
            assert client.texts(2) == ["to one", "to all"]
            post(server, f"/complete/{name}")
            assert client.rest() == b""
        assert ended(server, name, 1)["reason"] == "COMPLETED"
        assert any(found.startswith(saw) for found in get(server, "/seen"))
        assert "event" not in get(server, "/seen"), "no error was reported"
        assert "Traceback" not in server.log


@pytest.mark.parametrize("middleware", ["tracing", "reporting"])
def test_handoff_auto_is_refused_behind_a_middleware_that_only_observes(middleware: str) -> None:
    with serving(middleware=middleware) as server:
        name = new_name()
        with connected(server, f"/numbered/{name}") as client:
            assert len(client.events(3)) == 3
            assert writer_of(server, name) == "ResponseBody"
            post(server, f"/send/{name}", "more")
            assert client.texts(1) == ["more"]


@pytest.mark.parametrize("kind", ["gthread", "gevent_pywsgi"])
def test_connection_is_closed_behind_a_replaced_start_response(kind: str) -> None:
    """The worker's own response object cannot be found from what the app was called with."""
    with serving(kind, "tracing") as server:
        head, body = answer_to_the_end(server, f"/numbered/{new_name()}?timeout=0.1")
        assert head.count(b"\r\nConnection: close") == 1
        assert body.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("kind", ["gevent", "gthread", "gevent_pywsgi", "werkzeug"])
def test_middleware_that_never_calls_close_leaks_no_client(kind: str) -> None:
    with serving(kind, "forgetful") as server:
        leaving = [Client(server, f"/numbered/{new_name()}") for _ in range(4)]
        ending = Client(server, f"/numbered/{new_name()}?timeout=0.1")
        staying = Client(server, f"/numbered/{new_name()}")
        until(lambda: get(server, "/stats")["opened"] == 6, "all clients")
        for client in leaving:
            client.reset()
        assert len(decode(ending.rest())) == 3
        ending.close()
        until(lambda: get(server, "/stats")["clients"] == 1, "those that left to count no more")
        staying.close()
        until(lambda: get(server, "/process")["watched"] == 0, "no socket to be watched")


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_middleware_that_drops_a_stream_ends_it_as_a_disconnect(kind: str) -> None:
    with serving(kind, "hasty") as server:
        for _ in range(2):
            name = new_name()
            with connected(server, f"/numbered/{name}") as client:
                assert len(decode(client.rest())) == 3
            assert ended(server, name, 2)["reason"] == "DISCONNECTED"
        assert get(server, "/stats")["clients"] == 0


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_shutdown_does_not_wait_for_a_close_that_never_comes(kind: str) -> None:
    """The time to drain is longer than this test waits."""
    env = {"MIDDLEWARE": "forgetful", "SSE_DRAIN_SECONDS": "300"}
    with Server(kind, "tests.apps.handoff:app", env=env, arguments=["--graceful-timeout", "120"]) as server:
        client = Client(server, f"/numbered/{new_name()}")
        with connected(server, f"/numbered/{new_name()}") as staying:
            until(lambda: get(server, "/stats")["opened"] == 2, "both clients")
            client.close()
            server.signal(signal.SIGTERM)
            assert len(decode(staying.rest())) == 3
            until(lambda: server.has_exited, "the server to exit")


def needs_gunicorn(version: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(Version(version) > GUNICORN, reason=f"gunicorn has this from {version} on")


@contextmanager
def certificate(folder: Path) -> Iterator[tuple[ssl.SSLContext, list[str]]]:
    """A client's context that trusts it, and gunicorn's arguments."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    own.private_key_pem.write_to_path(str(folder / "key"))
    own.cert_chain_pems[0].write_to_path(str(folder / "certificate"))
    yield context, ["--keyfile", str(folder / "key"), "--certfile", str(folder / "certificate")]


@pytest.mark.parametrize(
    ("protocols", "version"),
    [
        ([], "HTTP/1.1"),
        pytest.param(["--http-protocols", "h2,h1"], "HTTP/2", marks=needs_gunicorn("25")),
    ],
)
def test_handoff_is_refused_for_tls_and_http2(protocols: list[str], version: str, tmp_path: Path) -> None:
    name = new_name()
    with (
        certificate(tmp_path) as (context, arguments),
        serving(arguments=[*arguments, *protocols]) as server,
        httpx.Client(
            verify=context, http2=True, timeout=PATIENCE, base_url=f"https://127.0.0.1:{server.port}"
        ) as client,
        client.stream("GET", f"/numbered/{name}") as response,
    ):
        assert response.http_version == version
        events = EventDecoder()
        texts: list[Any] = []
        for part in response.iter_bytes():
            texts += [event.data for event in events.feed(part)]
            if len(texts) == 3:
                break
        assert texts == ["0", "1", "2"]
        until(lambda: "the worker itself does TLS" in server.log, "the reason")


@needs_gunicorn("26.2")
def test_handoff_is_refused_for_cleartext_http2() -> None:
    name = new_name()
    with (
        serving(arguments=["--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"]) as server,
        httpx.Client(http1=False, http2=True, timeout=PATIENCE, base_url=server.url) as client,
        client.stream("GET", f"/numbered/{name}") as response,
    ):
        assert response.http_version == "HTTP/2"
        assert next(response.iter_bytes())
        until(lambda: "the client speaks HTTP/2" in server.log, "the reason")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_handoff_frees_the_greenlet_and_the_workers_place_of_the_request(server: Server) -> None:
    names = [new_name() for _ in range(30)]
    before = get(server, "/process")["greenlets"]
    clients = [Client(server, f"/numbered/{name}") for name in names]
    assert {writer_of(server, name) for name in names} == {"SocketWriter"}
    until(lambda: get(server, "/process")["greenlets"] <= before + 2, "the greenlets of the requests to end")
    for client in clients:
        assert len(client.events(3)) == 3
        client.close()


def test_handoff_runs_response_close_callbacks_at_the_end_of_the_stream(server: Server) -> None:
    name = new_name()
    with connected(server, f"/noted/{name}"):
        assert writer_of(server, name) == "SocketWriter"
        assert state(server, name)["journal"] == []
    assert "closed" in ended(server, name, 3)["journal"]


def slow_client(server: Server, path: str) -> socket.socket:
    """Return the socket of a client that has sent its request and reads nothing yet."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(PATIENCE)
    raw.connect(("127.0.0.1", server.port))
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return raw


def whole_response(raw: socket.socket) -> list[Any]:
    """Return the texts of all events up to a clean end of the body and of the connection."""
    response = http.client.HTTPResponse(raw)
    response.begin()
    texts = [event.data for event in decode(response.read())]
    assert raw.recv(1) == b"", "the connection ends, too"
    return texts


@pytest.mark.parametrize("by_list", [True, False])
def test_handoff_slow_client_with_a_full_socket_gets_every_byte(by_list: bool, server: Server) -> None:
    name = new_name()
    with slow_client(server, f"/silent/{name}?max_pending=100000") as raw:
        until(lambda: "open" in state(server, name), "the emitter")
        sent: list[str] = []
        while len(sent) < 20 or state(server, name)["pending"] < 20:
            sent.append(f"{len(sent)} " + "x" * (10_000 + len(sent)))
            post(server, f"/lists/{name}/send" if by_list else f"/send/{name}", sent[-1])
        post(server, f"/complete/{name}")
        assert whole_response(raw) == sent
    assert ended(server, name, 1)["reason"] == "COMPLETED"


def test_handoff_stopped_client_overflows_and_delays_no_other(server: Server, tmp_path: Path) -> None:
    """The client process is stopped, as on a laptop that was closed."""
    stuck, room = new_name(), new_name()
    program = (
        "import socket, sys, time\n"
        f"s = socket.create_connection(('127.0.0.1', {server.port}))\n"
        f"s.sendall(b'GET /silent/{stuck}?list={room}&max_pending=100 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "print(s.recv(10), flush=True)\n"
        "while s.recv(65536): pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with connected(server, f"/silent/{new_name()}?list={room}") as other:
            until(lambda: get(server, f"/lists/{room}") == {"count": 2}, "both")
            sent = 0
            while state(server, stuck)["open"]:
                assert sent < 1_000
                post(server, f"/lists/{room}/send", f"{sent} " + "x" * 50_000)
                assert other.texts(1)[0].startswith(f"{sent} ")
                assert state(server, stuck)["pending"] <= 100
                sent += 1
            assert ended(server, stuck, 2)["reason"] == "OVERFLOW"
            assert get(server, f"/lists/{room}") == {"count": 1}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("pause", [0, LINGER_SECONDS + 0.5])
def test_handoff_pipelined_request_destroys_no_byte_of_the_stream(pause: float, server: Server) -> None:
    """What a pipelining client sends would make the kernel reset the connection, were it just closed.

    Also where the client reads on only after the time in which others close their side.
    """
    name = new_name()
    with slow_client(server, f"/silent/{name}?max_pending=100000") as raw:
        until(lambda: state(server, name).get("idle"), "the stream")
        raw.sendall(b"GET /requests HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        sent = [f"{number} " + "x" * 10_000 for number in range(50)]
        for text in sent:
            post(server, f"/send/{name}", text)
        post(server, f"/complete/{name}")
        raw.sendall(b"GET /requests HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(pause)
        raw.sendall(b"GET /requests HTTP/1.1\r\nHost: x\r\n\r\n")
        assert whole_response(raw) == sent


@pytest.mark.parametrize("last", ["complete", "reset"])
def test_handoff_ended_stream_is_closed_though_the_client_keeps_it_open(last: str, server: Server) -> None:
    name = new_name()
    with slow_client(server, f"/silent/{name}") as raw:
        until(lambda: state(server, name).get("idle"), "the stream")
        watched = get(server, "/process")["watched"]
        post(server, f"/complete/{name}")
        if last == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.close()
        until(lambda: get(server, "/process")["watched"] < watched, "the server to release the socket")


def test_shutdown_writes_an_ended_handed_off_stream_to_its_end() -> None:
    name = new_name()
    with (
        serving(arguments=["--graceful-timeout", "25"]) as server,
        slow_client(server, f"/silent/{name}?max_pending=100000") as raw,
    ):
        until(lambda: "open" in state(server, name), "the emitter")
        sent: list[str] = []
        while len(sent) < 20 or state(server, name)["pending"] < 20:
            sent.append(f"{len(sent)} " + "x" * 10_000)
            post(server, f"/send/{name}", sent[-1])
        post(server, f"/complete/{name}")
        server.signal(signal.SIGTERM)
        until(lambda: "Handling signal: term" in server.log, "the signal")
        until(lambda: not accepts(server), "the worker to stop")
        assert whole_response(raw) == sent


def accepts(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def test_handoff_without_a_descriptor_leaves_the_stream_to_the_server() -> None:
    """Behind a middleware the server gets another socket for the client's; here no descriptor is left for it."""
    with serving(middleware="tracing", mode="on") as server:
        first, second = new_name(), new_name()
        with connected(server, f"/numbered/{first}"):
            assert writer_of(server, first) == "SocketWriter"
        post(server, "/exhaust-descriptors")
        with connected(server, f"/numbered/{second}?heartbeat=0.05") as client:
            assert len(client.events(3)) == 3
            until(lambda: "greenlet for each: [Errno 24]" in server.log, "the reason")
            assert [client.read_some() for _ in range(3)] == [b":\n\n"] * 3
            assert "/flask_sse_emitters/" not in server.log, "the server logs that it accepts no client; that is all"


def test_handoff_endless_sends_to_one_emitter_do_not_block_the_worker(server: Server) -> None:
    """A real thread sends as fast as its client reads: other requests are served meanwhile."""
    name = new_name()
    with connected(server, f"/silent/{name}?max_pending=100000&overflow=drop_oldest") as client:
        assert writer_of(server, name) == "SocketWriter"
        post(server, f"/flood/{name}")
        reader = threading.Thread(target=lambda: [None for _ in iter(client.read_some, b"")])
        reader.start()
        for _ in range(5):
            assert state(server, name)["open"]
        assert get(server, f"/flooding/{name}") == {"flooding": True}, "it answered while the flood was on"
        post(server, f"/complete/{name}")
        reader.join(PATIENCE)


def test_handoff_events_sent_from_the_event_loop_are_delivered(server: Server) -> None:
    name = new_name()
    with connected(server, f"/silent/{name}?max_pending=10000") as client:
        assert writer_of(server, name) == "SocketWriter"
        post(server, f"/from-loop/{name}?count=1500")
        texts = client.texts(3_000)
        assert [text for text in texts if "all" in text] == [f"to all {number}" for number in range(1_500)]
        assert [text for text in texts if "one" in text] == [f"to one {number}" for number in range(1_500)]


@pytest.mark.parametrize("version", [10, 11])
def test_handoff_after_fork_the_child_keeps_no_connection_open(version: int, server: Server) -> None:
    """It has a copy of each descriptor; an HTTP/1.0 client waits for the connection to end."""
    name = new_name()
    with connected(server, f"/numbered/{name}", version=version) as client:
        assert writer_of(server, name) == "SocketWriter"
        connection = _servers_end(client)
        child = post(server, "/fork")["pid"]
        try:
            post(server, f"/send/{name}", "more")
            post(server, f"/complete/{name}")
            assert [event.data for event in decode(client.rest())] == ["0", "1", "2", "more"]
            assert version == 10 or client.socket.recv(1) == b""
            until(lambda: connection not in _descriptors(child), "the child to close its copy")
        finally:
            os.kill(child, signal.SIGKILL)


def _descriptors(process: int) -> list[str]:
    return [os.readlink(entry.path) for entry in os.scandir(f"/proc/{process}/fd")]


def _servers_end(client: Client) -> str:
    port = client.socket.getsockname()[1]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return next(f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}"))


def test_handoff_works_for_an_app_loaded_before_the_fork() -> None:
    with serving(arguments=["--preload"]) as server:
        name = new_name()
        with connected(server, f"/numbered/{name}?list=all&heartbeat=0.05") as client:
            assert len(client.events(3)) == 3
            assert writer_of(server, name) == "SocketWriter"
            post(server, "/lists/all/send", "x")
            assert client.texts(1) == ["x"]
        assert ended(server, name, 2)["reason"] == "DISCONNECTED"


def test_handoff_works_for_a_client_of_a_unix_socket(tmp_path: Path) -> None:
    path, name = str(tmp_path / "socket"), new_name()
    with serving(arguments=["--bind", f"unix:{path}"]), closing(socket.socket(socket.AF_UNIX)) as raw:

        def steer(request: str) -> bytes:
            with closing(socket.socket(socket.AF_UNIX)) as other:
                other.settimeout(PATIENCE)
                other.connect(path)
                other.sendall(
                    f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
                )
                return b"".join(iter(lambda: other.recv(65536), b""))

        until(lambda: raw.connect_ex(path) == 0, "the socket")  # the file exists before the server listens
        raw.settimeout(PATIENCE)
        raw.sendall(f"GET /numbered/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: b'"writer":"SocketWriter"' in steer(f"GET /state/{name}"), "the hand-off")
        steer(f"POST /complete/{name}")
        assert whole_response(raw) == ["0", "1", "2"]


def test_handoff_max_requests_ends_streams_with_a_retry_and_clients_reconnect() -> None:
    """``max_requests``: the worker's streams end in order, and the next worker serves their clients."""
    with serving(arguments=["--max-requests", "3"]) as server:
        first, second = new_name(), new_name()
        with connected(server, f"/numbered/{first}") as client:
            assert len(client.events(3)) == 3
            pid = get(server, "/process")["pid"]
            get(server, "/requests")
            assert client.rest().startswith(b"retry: "), "the worker stops, and its streams end in order"
        with connected(server, f"/numbered/{second}") as client:
            assert len(client.events(3)) == 3
            assert get(server, "/process")["pid"] != pid
