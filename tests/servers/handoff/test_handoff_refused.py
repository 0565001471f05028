"""When a stream is not handed off, and that it works all the same."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from packaging.version import Version

from flask_sse_emitters.testing import decode
from tests.servers.kinds import on
from tests.support.client import Client, answer_to_the_end, connected, ended, get, new_app, new_name, post, stats
from tests.support.servers import GUNICORN, Server
from tests.support.waiting import PATIENCE, until

CHANGES = "a middleware iterates over the stream"


def await_refused(server: Server, app: str, reason: str) -> None:
    """Wait until the app's one client is written to by the server, for this reason."""
    until(lambda: stats(server, app)["declined"] == {reason: 1}, "the reason")


@on("gevent_off", "gthread_off", "werkzeug")
def test_handoff_is_refused_on_other_servers_or_if_off_and_logged_once(server: Server) -> None:
    app = new_app(server)
    is_off = server.kind.endswith("_off")
    reason = "SSE_HANDOFF is off" if is_off else "the server is not gunicorn with a worker of its own"
    for _ in range(2):
        with connected(server, f"{app}/numbered/{new_name()}") as client:
            assert len(client.events(3)) == 3
            await_refused(server, app, reason)
    assert server.log.count(reason) == 1


@on("gevent")
def test_handoff_is_refused_for_a_response_with_a_content_length(server: Server) -> None:
    app = new_app(server)
    with connected(server, f"{app}/promising/{new_name()}") as client:
        assert client.response.getheader("Content-Length") == "1000"
        await_refused(server, app, "the response has a Content-Length, or has not begun")


@on("gevent", "gthread")
@pytest.mark.parametrize(
    ("middleware", "reason"), [("gzip", CHANGES), ("compressing", "the app has put another body around the stream")]
)
def test_handoff_is_refused_behind_compression_and_every_event_is_decoded(
    middleware: str, reason: str, server: Server
) -> None:
    name, app = new_name(), new_app(server, middleware=middleware)
    with connected(server, f"{app}/numbered/{name}", headers={"Accept-Encoding": "gzip"}) as client:
        assert client.response.getheader("Content-Encoding") == "gzip"
        assert client.response.getheader("Connection") == "close"
        await_refused(server, app, reason)
        post(server, f"/send/{name}", "more")
        post(server, f"/complete/{name}")
        texts = [event.data for event in decode(gzip.decompress(client.rest()))]
    assert texts == ["0", "1", "2", "more"]


@on("gevent")
@pytest.mark.parametrize("middleware", ["shouting", "shouting in C"])
def test_handoff_is_refused_behind_a_middleware_that_changes_the_bytes(middleware: str, server: Server) -> None:
    name, app = new_name(), new_app(server, middleware=middleware)
    with connected(server, f"{app}/numbered/{name}") as client:
        client.read_some()
        assert client.response.getheader("Connection") == "close"
        await_refused(server, app, CHANGES)
        post(server, f"/send/{name}", "louder")
        post(server, f"/complete/{name}")
        assert b"DATA: LOUDER\n\n" in client.rest()


@on("gevent")
@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize(("middleware", "saw"), [("tracing", "GET"), ("reporting", "transaction")])
def test_handoff_behind_a_middleware_that_observes_is_refused_unless_on(
    middleware: str, saw: str, mode: str, server: Server
) -> None:
    before = len(server.log)
    name, app = new_name(), new_app(server, middleware=middleware, SSE_HANDOFF=mode)
    with connected(server, f"{app}/numbered/{name}?list={app[1:]}") as client:
        assert len(client.events(3)) == 3
        assert client.response.getheader("Connection") == "close"
        is_on = mode == "on"
        until(lambda: stats(server, app)["outlets"] == {"handed_off": is_on, "server": not is_on}, "the outlet")
        assert len(stats(server, app)["declined"]) == (not is_on)
        post(server, f"/send/{name}", "to one")
        post(server, f"/lists{app}/send", "to all")
        assert client.texts(2) == ["to one", "to all"]
        post(server, f"/complete/{name}")
        assert client.rest() == b""
    assert ended(server, name, 1)["reason"] == "COMPLETED"
    until(lambda: any(found.startswith(saw) for found in get(server, f"{app}/seen")), "what it saw")
    assert "event" not in get(server, f"{app}/seen"), "no error was reported"
    assert "Traceback" not in server.log[before:]


@on("gthread", "gevent_pywsgi")
def test_connection_is_closed_behind_a_replaced_start_response(server: Server) -> None:
    """The worker's own response object cannot be found from what the app was called with."""
    app = new_app(server, middleware="tracing")
    head, body = answer_to_the_end(server, f"{app}/numbered/{new_name()}?timeout=0.1")
    assert head.count(b"\r\nConnection: close") == 1
    assert body.endswith(b"\r\n0\r\n\r\n")


@on("gevent", "gthread", "gevent_pywsgi", "werkzeug")
def test_middleware_that_never_calls_close_leaks_no_client(server: Server) -> None:
    app = new_app(server, middleware="forgetful")
    leaving = [Client(server, f"{app}/numbered/{new_name()}") for _ in range(4)]
    ending = Client(server, f"{app}/numbered/{new_name()}?timeout=0.1")
    staying = Client(server, f"{app}/numbered/{new_name()}")
    until(lambda: stats(server, app)["opened"] == 6, "all clients")
    for client in leaving:
        client.reset()
    assert len(decode(ending.rest())) == 3
    ending.close()
    until(lambda: stats(server, app)["clients"] == 1, "those that left to count no more")
    staying.close()
    until(lambda: get(server, "/process")["watched"] == 0, "all connections to be closed")


@on("gevent", "gthread")
def test_middleware_that_drops_a_stream_ends_it_as_a_disconnect(server: Server) -> None:
    app = new_app(server, middleware="hasty")
    for _ in range(2):
        name = new_name()
        with connected(server, f"{app}/numbered/{name}") as client:
            assert len(decode(client.rest())) == 3, "what is in the part that the middleware passes on"
        assert ended(server, name, 2)["reason"] == "DISCONNECTED"
    assert stats(server, app)["clients"] == 0


@on("gevent", "gthread")
def test_shutdown_does_not_wait_for_a_close_that_never_comes(server: Server) -> None:
    """The time to drain is longer than this test waits."""
    app = new_app(server, middleware="forgetful", SSE_DRAIN_SECONDS=300)
    client = Client(server, f"{app}/numbered/{new_name()}")
    with connected(server, f"{app}/numbered/{new_name()}") as staying:
        until(lambda: stats(server, app)["opened"] == 2, "both clients")
        client.close()
        post(server, f"{app}/shutdown")
        assert len(decode(staying.rest())) == 3


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


def first_texts(client: httpx.Client, version: str) -> list[str]:
    """Return the texts of the three events of a stream that the client gets over this version of HTTP."""
    with client.stream("GET", f"/numbered/{new_name()}") as response:
        assert response.http_version == version
        body = b""
        for part in response.iter_bytes():
            body += part
            if body.count(b"\ndata:") == 3 and body.endswith(b"\n\n"):
                break
        return [event.data for event in decode(body)]


def test_handoff_is_refused_for_tls_and_http2(tmp_path: Path) -> None:
    knows_http2 = Version("25") <= GUNICORN
    protocols = ["--http-protocols", "h2,h1"] if knows_http2 else []
    with (
        certificate(tmp_path) as (context, arguments),
        Server("gevent", "tests.apps.handoff:app", arguments=[*arguments, *protocols]) as server,
    ):
        for version in ["HTTP/1.1", "HTTP/2"] if knows_http2 else ["HTTP/1.1"]:
            url = f"https://127.0.0.1:{server.port}"
            with httpx.Client(verify=context, http2=version == "HTTP/2", timeout=PATIENCE, base_url=url) as client:
                assert first_texts(client, version) == ["0", "1", "2"]
        until(lambda: "the worker itself does TLS" in server.log, "the reason")


@pytest.mark.parametrize(("kind", "status"), [("gthread", 200), ("sync", 500)])
def test_stream_over_the_workers_own_tls_holds_a_thread_or_is_refused(kind: str, status: int, tmp_path: Path) -> None:
    with certificate(tmp_path) as (context, arguments), ExitStack() as stack:
        server = stack.enter_context(Server(kind, "tests.apps.handoff:app", arguments=arguments))
        url = f"https://127.0.0.1:{server.port}"
        client = stack.enter_context(httpx.Client(verify=context, timeout=PATIENCE, base_url=url))

        def is_decided() -> bool:
            return bool(client.get("/stats").json()["server"]["declined"] == "the worker itself does TLS")

        with client.stream("GET", f"/silent/{new_name()}") as response:
            assert response.status_code == status
            until(is_decided, "the reason")
            assert client.get("/stats").json()["outlets"] == {"handed_off": 0, "server": int(status == 200)}


@needs_gunicorn("26.2")
def test_handoff_is_refused_for_cleartext_http2() -> None:
    arguments = ["--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"]
    with (
        Server("gevent", "tests.apps.handoff:app", arguments=arguments) as server,
        httpx.Client(http1=False, http2=True, timeout=PATIENCE, base_url=server.url) as client,
    ):
        assert first_texts(client, "HTTP/2") == ["0", "1", "2"]
        until(lambda: "the client speaks HTTP/2" in server.log, "the reason")


def test_handoff_without_a_descriptor_leaves_the_stream_to_the_server() -> None:
    """Behind a middleware the server gets another socket for the client's; here no descriptor is left for it."""
    with Server("gevent", "tests.apps.handoff:app") as server:
        app = new_app(server, middleware="tracing", SSE_HANDOFF="on")
        with connected(server, f"{app}/numbered/{new_name()}"):
            until(lambda: stats(server, app)["outlets"]["handed_off"] == 1, "the hand-off")
        post(server, "/exhaust-descriptors")
        with connected(server, f"{app}/numbered/{new_name()}?heartbeat=0.05") as client:
            assert len(client.events(3)) == 3
            until(lambda: "greenlet for each: [Errno 24]" in server.log, "the reason")
            assert [client.read_some() for _ in range(3)] == [b":\n\n"] * 3
            assert "/flask_sse_emitters/" not in server.log, "the server logs that it accepts no client; that is all"
