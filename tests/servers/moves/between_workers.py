"""A test that stands between two workers of which one gives its streams to the other, and speaks their protocol."""

from __future__ import annotations

import array
import http.client
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters import Publisher
from tests.support.client import Client, connected, get
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

#: For a worker that looks for another one, in vain, for as long as gunicorn gives it.
SHORT_GRACE = "--graceful-timeout=10"


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


class Side:
    """One side of a connection between workers."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(PATIENCE)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid: int = struct.unpack("3i", credentials)[0]  #: the process at the other end
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
def greeted(site: Site) -> Iterator[Side]:
    """Have the worker stop, and connect to this process; yield its side once it may give its streams."""
    with fake_worker(site) as accept:
        site.stop_worker()
        old = accept()
        assert old.receive()["type"] == "hello"
        old.send({"type": "welcome"})
        yield old


@contextmanager
def offered(site: Site) -> Iterator[tuple[Side, Any]]:
    """Have the worker stop, and offer its streams to this process; yield its side, and the offer."""
    with greeted(site) as old:
        old.send(prepared(old.receive()))
        yield old, old.receive()


def prepared(prepare: Any) -> Any:
    """Return the answer to a message that says which channels come."""
    assert prepare["type"] == "prepare"
    return {"type": "prepared", "batch": prepare["batch"]}


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


@contextmanager
def meeting(site: Site) -> Iterator[tuple[Side, Side]]:
    """Have the worker of two that has the client stop, and stand between both; yield their sides."""
    with fake_worker(site) as accept, ExitStack() as stack:
        worker, other = with_client(site)
        connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connection.connect(str(site.meeting / str(other)))  # before the other one does
        new = Side(connection)
        stack.callback(new.close)
        (site.meeting / str(other)).unlink()
        os.kill(worker, signal.SIGTERM)
        yield accept(), new


@contextmanager
def between(site: Site) -> Iterator[tuple[Side, Side, Any]]:
    """As :func:`meeting`, once they have greeted each other, and both listen; yield the offer as well."""
    with meeting(site) as (old, new):
        for _ in ("hello", "prepare"):
            new.send(old.receive())
            old.send(new.receive())
        yield old, new, old.receive()


def with_client(site: Site) -> tuple[int, int]:
    """Return the worker of two that has the client, and the other one."""
    found = until(lambda: (stats := get(site.server, "/stats"))["clients"] and stats, "the worker with the client")
    [other] = {*names(site)} - {str(os.getpid()), str(found["pid"])}
    return found["pid"], int(other)


def names(site: Site) -> list[str]:
    return [name for name in os.listdir(site.meeting) if name.isdecimal()]
