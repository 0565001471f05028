"""Clients of ``tests.apps.faults.network_faults``, and what its worker says of them."""

from __future__ import annotations

import http.client
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import EventDecoder
from tests.support.client import Client, connected, get, new_name, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

#: Objects that stay: the history of channels, what shows a worker to others, and cancelled timers, removed later.
KEPT = ("brokers.", "runtime.timers.", "moving.meeting.")


class NetworkServer(Server):
    """A server whose worker says what becomes of its clients, and which connections they have."""

    def __init__(self, kind: str, env: dict[str, str] | None = None, listeners: Sequence[int] = ()) -> None:
        super().__init__(kind, "tests.apps.faults.network_faults:app", env=env, listeners=listeners)

    def stream(self, name: str) -> dict[str, Any]:
        """Return the state of a named client's stream."""
        found: dict[str, Any] = get(self, f"/stream/{name}")
        return found

    def connection_of(self, name: str) -> str:
        """Return the connection of a named client in the worker, once it has a stream."""
        until(lambda: self.stream(name)["open"], "its stream")
        return str(self.stream(name)["connection"])

    def connections(self) -> set[str]:
        """Return the connections, and other sockets, that the worker has open."""
        folder = f"/proc/{get(self, '/process')['pid']}/fd"
        found = set()
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                found.add(os.readlink(f"{folder}/{name}"))
        return found

    def await_end(self, name: str, reason: str) -> str:
        """Check each callback once, the reason, and the release of the client. Return the error."""
        until(lambda: len(get(self, "/ends").get(name, [])) >= 3, f"the end of {name}")
        (first, error), *others = get(self, "/ends")[name]
        assert (first, others) == ("error", [["completion", f"CloseReason.{reason}"], ["gone", reason]])
        return str(error)

    def closed(self, reason: str) -> int:
        """Return how many streams have ended for this reason."""
        return int(get(self, "/stats")["closed"].get(reason, 0))

    def settled(self) -> dict[str, Any]:
        """Return its figures once all its streams are over, and the pages of their replays dropped."""

        def found() -> dict[str, Any] | None:
            process, stats = get(self, "/process"), get(self, "/stats")
            kept = {name: count for name, count in process["objects"].items() if not name.startswith(KEPT)}
            is_over = not {*kept} & {"streams.emitter.SseEmitter", "channels.replay.pages.Page"}
            is_over = is_over and not stats["clients"] and not stats["channels"]
            return {**process, **stats, "objects": kept} if is_over else None

        return until(found, "all streams to be over") or {}

    def connect(self, *, small: bool = False) -> socket.socket:
        """Connect a client; a small one has the smallest buffer, and segments."""
        raw = socket.socket()
        raw.settimeout(PATIENCE)
        if small:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)
        raw.connect(("127.0.0.1", self.port))
        return raw


class Room:
    """A channel, its healthy readers, and all that was published there."""

    def __init__(self, server: NetworkServer, readers: int = 3) -> None:
        self.server = server
        self.channel = new_name()
        self.sent: list[str] = []
        self._readers = [Client(server, self.path("")) for _ in range(readers)]

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for reader in self._readers:
            reader.close()

    def path(self, name: str) -> str:
        return f"/events/{self.channel}?name={name}"

    def publish(self, text: str) -> None:
        """Publish to the channel, and read it with all healthy readers."""
        self.sent.append(text)
        post(self.server, f"/publish/{self.channel}", text)
        for reader in self._readers:
            assert reader.texts(1) == [text]

    def come_back(self, got: list[Event]) -> list[str]:
        """Return the texts that a client has after it got these events and reconnected."""
        headers = {"Last-Event-ID": str(got[-1].id)}
        missed = self.sent[len(got) :]
        with connected(self.server, self.path(""), headers=headers) as client:
            return [event.data for event in got] + client.texts(len(missed))


def ask(raw: socket.socket, path: str) -> None:
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def reset_when_closed(raw: socket.socket) -> None:
    """Let a socket disconnect with a reset in place of a FIN."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Reading:
    """A client of a room, with a name, and its events as a browser would have them. Waits for the response's head."""

    def __init__(self, raw: socket.socket, room: Room, *, byte_by_byte: bool = False) -> None:
        self.raw, self.name = raw, new_name()
        ask(raw, room.path(self.name))
        self._response = http.client.HTTPResponse(raw)
        if byte_by_byte:  # from the kernel, too
            self._response.fp = raw.makefile("rb", buffering=1)
        self._response.begin()
        self._size = 1 if byte_by_byte else None
        self._decoder = EventDecoder()
        self.events: list[Event] = []

    def texts(self, n: int) -> list[str]:
        """Return the texts of the first ``n`` events, once they are there."""
        while len(self.events) < n:
            assert self._read(self._size), "the end"
        return [event.data for event in self.events[:n]]

    def to_the_cut(self) -> list[Event]:
        """Return all whole events up to an end that is not clean: a clean one would mean that nothing is missing."""
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            self._read_on()
        return self.events

    def to_the_end(self) -> list[Event]:
        """Return all whole events, up to an end of any kind."""
        with suppress(http.client.IncompleteRead, ConnectionResetError):
            self._read_on()
        return self.events

    def _read_on(self) -> None:
        while self._read(None):
            pass

    def _read(self, size: int | None) -> bytes:
        part = self._response.read1() if size is None else self._response.read(size)
        self.events += [event for event in self._decoder.feed(part) if event.data is not None]
        return part
