"""What a client gets whose stream was handed off. The tests of all servers cover the rest."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from flask_sse_emitters.testing import decode
from tests.servers.handoff.descriptors import ServersEnd
from tests.servers.kinds import HANDING_OFF, on
from tests.support.client import (
    Client,
    connected,
    ended,
    get,
    new_app,
    new_name,
    post,
    slow_client,
    state,
    stats,
    whole_response,
)
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

#: In the test of gthread's count; 10000 is a good number for a run by hand.
HANDOFFS = int(os.environ.get("HANDOFFS", "500"))

#: Those that hand clients off.
on_each = on(*HANDING_OFF)


def await_handoff(server: Server, app: str, clients: int = 1) -> None:
    """Wait until all clients of the app are handed off: they may have read the first bytes before."""
    until(lambda: stats(server, app)["outlets"] == {"handed_off": clients, "server": 0}, "the hand-off")


@on("gevent", "gevent_pywsgi")
def test_handoff_frees_the_greenlet_and_the_workers_place_of_the_request(server: Server) -> None:
    app = new_app(server)
    before = get(server, "/process")["greenlets"]
    clients = [Client(server, f"{app}/numbered/{new_name()}") for _ in range(30)]
    await_handoff(server, app, 30)
    until(lambda: get(server, "/process")["greenlets"] <= before + 2, "the greenlets of the requests to end")
    for client in clients:
        assert len(client.events(3)) == 3
        client.close()


@on_each
def test_handoff_runs_response_close_callbacks_at_the_end_of_the_stream(server: Server) -> None:
    name, app = new_name(), new_app(server)
    with connected(server, f"{app}/noted/{name}"):
        await_handoff(server, app)
        assert state(server, name)["journal"] == []
    assert "closed" in ended(server, name, 3)["journal"]


@on("gthread")
def test_gthread_counts_its_connections_rightly_after_many_handoffs(server: Server) -> None:
    app = new_app(server)
    for _ in range(HANDOFFS // 250):
        with ExitStack() as stack:
            for _ in range(250):
                stack.enter_context(slow_client(server, f"{app}/numbered/{new_name()}"))
            await_handoff(server, app, 250)
            until(lambda: get(server, "/connections") == {"count": 1}, "its count to be that of this request alone")
        until(lambda: stats(server, app)["clients"] == 0, "the end of all")
    until(lambda: get(server, "/connections") == {"count": 1}, "the same afterwards")


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_worker_connections_count_only_what_gunicorn_still_holds(kind: str) -> None:
    few = ["--worker-connections", "20", "--threads", "4"]
    with Server(kind, "tests.apps.servers.contract:app", arguments=few) as server, ExitStack() as stack:
        streams = [stack.enter_context(connected(server, f"/silent/{new_name()}?list=all")) for _ in range(60)]
        until(lambda: stats(server)["outlets"] == {"handed_off": 60, "server": 0}, "the hand-offs")
        post(server, "/lists/all/send", "x")
        assert [stream.texts(1) for stream in streams] == [["x"]] * 60


@on_each
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


@on_each
def test_handoff_stopped_client_overflows_and_delays_no_other(server: Server) -> None:
    """Nobody reads from its socket, as on a laptop that was closed."""
    stuck, room = new_name(), new_name()
    with (
        slow_client(server, f"/silent/{stuck}?list={room}&max_pending=100"),
        connected(server, f"/silent/{new_name()}?list={room}") as other,
    ):
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


@on_each
@pytest.mark.parametrize("pause", [0, 2.5])  # seconds: an ended stream's client has 2 to close its side
def test_handoff_pipelined_request_destroys_no_byte_of_the_stream(pause: float, server: Server) -> None:
    """What a pipelining client sends would make the kernel reset the connection, were it just closed.

    Also where the client reads on only after the time in which others close their side.
    """
    name, app = new_name(), new_app(server)
    with slow_client(server, f"{app}/silent/{name}?max_pending=100000") as raw:
        await_handoff(server, app)
        raw.sendall(b"GET /requests HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        sent = [f"{number} " + "x" * 10_000 for number in range(50)]
        for text in sent:
            post(server, f"/send/{name}", text)
        post(server, f"/complete/{name}")
        raw.sendall(b"GET /requests HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(pause)
        raw.sendall(b"GET /requests HTTP/1.1\r\nHost: x\r\n\r\n")
        assert whole_response(raw) == sent


@on_each
@pytest.mark.parametrize("last", ["complete", "reset"])
def test_handoff_ended_stream_is_closed_though_the_client_keeps_it_open(last: str, server: Server) -> None:
    name, app = new_name(), new_app(server)
    with slow_client(server, f"{app}/silent/{name}") as raw:
        await_handoff(server, app)
        connection = ServersEnd(server, raw)
        assert connection.is_open
        post(server, f"/complete/{name}")
        if last == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.close()
        until(lambda: not connection.is_open, "the server to release the socket")


@on_each
def test_handoff_endless_sends_to_one_emitter_do_not_block_the_worker(server: Server) -> None:
    """A real thread sends as fast as its client reads: other requests are served meanwhile."""
    name, app = new_name(), new_app(server)
    with connected(server, f"{app}/silent/{name}?max_pending=100000&overflow=drop_oldest") as client:
        await_handoff(server, app)
        post(server, f"/flood/{name}")
        reader = threading.Thread(target=lambda: [None for _ in iter(client.read_some, b"")])
        reader.start()
        for _ in range(5):
            assert state(server, name)["open"]
        assert get(server, f"/flooding/{name}") == {"flooding": True}, "it answered while the flood was on"
        post(server, f"/complete/{name}")
        reader.join(PATIENCE)


@on("gevent")
def test_handoff_events_sent_from_the_event_loop_are_delivered(server: Server) -> None:
    name, app = new_name(), new_app(server)
    with connected(server, f"{app}/silent/{name}?max_pending=10000") as client:
        await_handoff(server, app)
        post(server, f"/from-loop/{name}?count=1500")
        texts = client.texts(3_000)
        assert [text for text in texts if "all" in text] == [f"to all {number}" for number in range(1_500)]
        assert [text for text in texts if "one" in text] == [f"to one {number}" for number in range(1_500)]


@on_each
@pytest.mark.parametrize("version", [10, 11])
def test_handoff_after_fork_the_child_keeps_no_connection_open(version: int, server: Server) -> None:
    """It has a copy of each descriptor; an HTTP/1.0 client waits for the connection to end."""
    name, app = new_name(), new_app(server)
    with connected(server, f"{app}/numbered/{name}", version=version) as client:
        await_handoff(server, app)
        connection = ServersEnd(server, client.socket)
        child = post(server, "/fork")["pid"]
        try:
            post(server, f"/send/{name}", "more")
            post(server, f"/complete/{name}")
            assert [event.data for event in decode(client.rest())] == ["0", "1", "2", "more"]
            assert version == 10 or client.socket.recv(1) == b""
            until(lambda: not connection.is_open_in(child), "the child to close its copy")
        finally:
            os.kill(child, signal.SIGKILL)
