"""Faults while streams move: a test stands between the two workers, or for one of them, and speaks their protocol.

Whatever happens, a client goes on, or its connection ends and it comes back to what it has missed.
"""

from __future__ import annotations

import array
import http.client
import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters import Publisher
from tests.support.client import Client, connected, get
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

KINDS = ["gevent", "gthread", "sync"]

pytestmark = pytest.mark.xdist_group("moves-faults")


#: So many streams are in one offer at most.
MAX_STREAMS = 250

#: A chunk with one event.
CHUNK = b"9\r\ndata: x\n\n\r\n"


class Site:
    """A server of one worker, and the folder in which its workers meet."""

    def __init__(self, server: Server, folder: Path, publisher: Publisher) -> None:
        self.server = server
        self.publisher = publisher
        self._folder = folder

    @property
    def meeting(self) -> Path:
        [found] = until(lambda: list(self._folder.glob("flask-sse-emitters-*")), "the folder")
        return found

    @property
    def worker(self) -> int:
        return int(get(self.server, "/stats")["pid"])

    def stop_worker(self) -> int:
        """Tell the worker to stop, as gunicorn does; it starts another one once it has ended."""
        worker = self.worker
        until(lambda: (self.meeting / str(worker)).exists(), "the worker to show itself")
        os.kill(worker, signal.SIGTERM)
        return worker

    def publish(self, text: str) -> str:
        return self.publisher.publish("public/a", text)

    def comes_back(self, last: str, *wanted: str) -> None:
        """Come back as a client does, and get what was missed."""

        def gets_it() -> bool:
            with suppress(OSError, http.client.HTTPException):
                headers = {"Last-Event-ID": last}
                with connected(self.server, "/events/public/a", headers=headers) as client:
                    return client.texts(len(wanted)) == list(wanted)
            return False

        until(gets_it, "what was missed")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture
def make(redis: RedisServer) -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # its path is short, as that of a socket is

        def make(kind: str, *arguments: str, **config: Any) -> Site:
            code = folder / "code.json"
            code.write_text(json.dumps({"config": {"SSE_BROKER_URL": redis.url, "SSE_DRAIN_SECONDS": 1, **config}}))
            env = {"MOVING": str(code), "XDG_RUNTIME_DIR": str(folder)}
            command = ["--graceful-timeout=30", *arguments]
            server = stack.enter_context(Server(kind, "tests.apps.moving:app", env=env, arguments=command))
            return Site(server, folder, stack.enter_context(Publisher(redis.url)))

        yield make


class Side:
    """One side of a connection between workers."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(PATIENCE)
        self.descriptors: list[int] = []

    def send(self, message: Any, descriptors: list[int] | None = None) -> None:
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self._socket.sendmsg([data], passed)

    def receive(self) -> Any:
        """Return the next message; None at the end. Its descriptors are kept."""
        data, ancillary, _, _ = self._socket.recvmsg(200_000, socket.CMSG_SPACE(1_000))
        for _, _, passed in ancillary:
            found = array.array("i")
            found.frombytes(passed)
            self.descriptors += found
        return json.loads(data) if data else None

    def close(self) -> None:
        self._socket.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


@contextmanager
def fake_worker(site: Site) -> Iterator[Callable[[], Side]]:
    """Show this process as a worker that stays. Return what waits for the one that stops."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        path = site.meeting / str(os.getpid())
        listener.bind(str(path))
        stack.callback(path.unlink, missing_ok=True)
        listener.listen()
        listener.settimeout(PATIENCE)

        def accept() -> Side:
            side = Side(listener.accept()[0])
            stack.callback(side.close)
            return side

        yield accept


@contextmanager
def offered(site: Site) -> Iterator[tuple[Side, Any, Any]]:
    """Have the worker stop, and offer its streams to this process; yield its side, its hello, and the offer."""
    with fake_worker(site) as accept:
        site.stop_worker()
        old = accept()
        hello = old.receive()
        old.send({"type": "welcome"})
        yield old, hello, old.receive()


@contextmanager
def reading(site: Site) -> Iterator[tuple[Client, str]]:
    """Have a client with an event; yield it, and the id of that."""
    with connected(site.server, "/events/public/a") as client:
        last = site.publish("first")
        assert client.texts(1) == ["first"]
        yield client, last


def ends_broken(client: Client) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        client.rest()


@pytest.mark.parametrize("kind", KINDS)
def test_worker_that_takes_a_stream_has_its_connection_to_itself(kind: str, make: Callable[..., Site]) -> None:
    """The record is what a person can read, and the old worker closes its descriptor without ending the connection."""
    site = make(kind)
    with reading(site) as (client, last), offered(site) as (old, _, offer):
        [record] = offer["streams"]
        assert (record["channels"], record["is_chunked"], record["rest"]) == ([["public/a", last]], True, "")
        old.send({"type": "answer", "batch": offer["batch"], "refused": {}})
        assert old.receive() is None, "it has nothing more to give"
        [descriptor] = old.descriptors
        os.write(descriptor, CHUNK)
        assert client.texts(1) == ["x"]


FAULTS = ["killed", "garbage", "of another batch", "of streams that were not offered"]
CASES = [*((kind, "silent") for kind in KINDS), *(("sync", fault) for fault in FAULTS)]


@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_worker_that_does_not_answer_rightly_costs_a_reconnect(
    kind: str, fault: str, make: Callable[..., Site]
) -> None:
    site = make(kind)
    with reading(site) as (client, last), offered(site) as (old, _, offer):
        if fault == "killed":
            old.close()
        elif fault == "garbage":
            old.send(b"garbage")
        elif fault == "of another batch":
            old.send({"type": "answer", "batch": offer["batch"] + 1, "refused": {}})
        elif fault == "of streams that were not offered":
            old.send({"type": "answer", "batch": offer["batch"], "refused": {"7": "limit"}})
        ends_broken(client)
        site.publish("second")
        site.comes_back(last, "second")


def test_worker_that_dies_between_two_answers_has_the_streams_of_the_first_alone(make: Callable[..., Site]) -> None:
    """The second offer comes before the first is answered; each stands for itself."""
    site = make("sync")
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(site.server, "/events/public/a")) for _ in range(MAX_STREAMS + 10)]
        old, _, offer = stack.enter_context(offered(site))
        second = old.receive()
        assert [len(each["streams"]) for each in (offer, second)] == [MAX_STREAMS, 10]
        taken, old.descriptors = old.descriptors[:MAX_STREAMS], old.descriptors[MAX_STREAMS:]
        old.send({"type": "answer", "batch": offer["batch"], "refused": {}})
        old.close()
        until(lambda: "was given 10 streams" in site.server.log, "the others to end")
        for descriptor in taken:
            os.write(descriptor, CHUNK)
            os.close(descriptor)
        assert sorted(map(gets_an_event, clients)) == [False] * 10 + [True] * MAX_STREAMS


def gets_an_event(client: Client) -> bool:
    try:
        return client.texts(1) == ["x"]
    except (http.client.IncompleteRead, ConnectionError):
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_worker_that_refuses_leaves_the_stream_to_end_cleanly(kind: str, make: Callable[..., Site]) -> None:
    site = make(kind)
    with reading(site) as (client, last), offered(site) as (old, _, offer):
        site.publish("meanwhile")
        old.send({"type": "answer", "batch": offer["batch"], "refused": {"0": "limit"}})
        rest = client.rest()
        assert b"data: meanwhile\n" in rest
        assert rest.endswith(b"\n\n")
        assert b"retry: " in rest
        assert "'limit': 1" in site.server.log
        site.publish("later")
        site.comes_back(last, "meanwhile", "later")


@pytest.mark.parametrize("reason", ["version", "app", "package", "settings", "broker"])
def test_worker_that_refuses_all_streams_leaves_them_to_end_cleanly(reason: str, make: Callable[..., Site]) -> None:
    site = make("gthread")
    with reading(site) as (client, _), fake_worker(site) as accept:
        site.stop_worker()
        old = accept()
        old.receive()
        old.send({"type": "refusal", "reason": reason, "detail": "for a test"})
        assert b"retry: " in client.rest()
        assert f"'{reason}': 1" in site.server.log


def test_worker_that_begins_to_stop_itself_costs_no_connection(make: Callable[..., Site]) -> None:
    """What was offered and not answered for by then, it has not received."""
    site = make("sync")
    with reading(site) as (client, _), offered(site) as (old, _, _):
        old.send({"type": "refusal", "reason": "stopping", "detail": "for a test"})
        assert b"retry: " in client.rest()


@contextmanager
def between(site: Site) -> Iterator[tuple[Side, Side, Any]]:
    """Have the worker of two that has the client stop, and stand between both; yield their sides, and the offer."""
    with fake_worker(site) as accept, ExitStack() as stack:
        found = until(lambda: (stats := get(site.server, "/stats"))["clients"] and stats, "the worker with the client")
        others = [name for name in names(site) if name not in (str(os.getpid()), str(found["pid"]))]
        connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connection.connect(str(site.meeting / others[0]))  # before the other one does
        new = Side(connection)
        stack.callback(new.close)
        (site.meeting / others[0]).unlink()
        os.kill(found["pid"], signal.SIGTERM)
        old = accept()
        new.send(old.receive())
        old.send(new.receive())
        yield old, new, old.receive()


def names(site: Site) -> list[str]:
    return [name for name in os.listdir(site.meeting) if name.isdecimal()]


@pytest.fixture
def two(make: Callable[..., Site]) -> Callable[[str], Site]:
    """Make a server of two workers that have found each other."""

    def two(kind: str) -> Site:
        site = make(kind, "--workers=2")
        until(lambda: len(names(site)) == 2, "both workers")
        return site

    return two


@pytest.mark.parametrize("kind", KINDS)
def test_worker_killed_after_its_offer_leaves_its_streams_to_the_other(kind: str, two: Callable[[str], Site]) -> None:
    site = two(kind)
    with reading(site) as (client, _), between(site) as (old, new, offer):
        new.send(offer, old.descriptors)
        new.close()
        site.publish("x")
        assert client.texts(1) == ["x"]


@pytest.mark.parametrize("kind", KINDS)
def test_chunk_that_is_half_written_is_written_to_its_end_by_the_other(kind: str, two: Callable[[str], Site]) -> None:
    site = two(kind)
    with reading(site) as (client, _), between(site) as (old, new, offer):
        os.write(old.descriptors[0], CHUNK[:5])
        offer["streams"][0]["rest"] = CHUNK[5:].decode()
        new.send(offer, old.descriptors)
        assert new.receive() == {"type": "answer", "batch": offer["batch"], "refused": {}}
        site.publish("y")
        assert client.texts(2) == ["x", "y"]


def refused(two: Callable[[str], Site], change: Callable[[Any], object], descriptors: bool = True) -> Any:
    """Return the reason with which a worker refuses a stream that is changed on its way."""
    site = two("gthread")
    with reading(site) as (_, last), between(site) as (old, new, offer):
        change(offer["streams"][0])
        new.send(offer, old.descriptors if descriptors else [])
        answer = new.receive()
        old.send(answer)
        site.publish("later")
        site.comes_back(last, "later")
        return answer["refused"]


def test_worker_that_does_not_know_the_position_refuses_the_stream(two: Callable[[str], Site]) -> None:
    def change(record: Any) -> None:
        record["channels"][0][1] = "nobody-1"

    assert refused(two, change) == {"0": "history"}


def test_worker_without_a_list_of_that_name_refuses_the_stream(two: Callable[[str], Site]) -> None:
    assert refused(two, lambda record: record.update(lists=["nobody's"])) == {"0": "list"}


def test_grant_that_ends_while_its_stream_moves_ends_it_in_the_other(two: Callable[[str], Site]) -> None:
    site = two("gevent")
    with reading(site) as (client, last), between(site) as (old, new, offer):
        offer["streams"][0]["ends_by"] = 1.0
        new.send(offer, old.descriptors)
        assert new.receive()["refused"] == {}
        client.rest()
        site.publish("later")
        site.comes_back(last, "later")


def test_client_that_leaves_while_it_moves_is_noticed_by_the_other(two: Callable[[str], Site]) -> None:
    site = two("sync")
    with reading(site) as (client, _), between(site) as (old, new, offer):
        client.reset()
        new.send(offer, old.descriptors)
        assert new.receive()["type"] == "answer"
        old.close()
        until(lambda: get(site.server, "/stats")["clients"] == 0, "no client to be left")


PACKETS = [b"garbage", b"", b'{"type": "offer"}', b'{"type": "hello", "version": 99, "terms": {}}']


@pytest.mark.parametrize("packet", PACKETS)
def test_worker_that_is_sent_what_is_no_message_goes_on(packet: bytes, make: Callable[..., Site]) -> None:
    site = make("gthread")
    with reading(site) as (client, _), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        until(lambda: names(site), "the worker to show itself")
        connection.connect(str(site.meeting / names(site)[0]))
        side = Side(connection)
        if packet:
            side.send(packet)
            until_closed(side)
        site.publish("x")
        assert client.texts(1) == ["x"]
        assert "Traceback" not in site.server.log


def until_closed(side: Side) -> None:
    message = side.receive()
    assert message is None or message["type"] == "refusal"
