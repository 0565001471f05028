"""A connection to a server that the test can cut or hold."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType

_RESET = struct.pack("ii", 1, 0)


class Wire:
    """A proxy from a port of its own to another one.

    ::

        with Wire(server.port) as wire:
            connect(wire.port)
            wire.cut()
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.is_held = False  #: no data pass
        self.is_closed = False  #: new connections are reset at once
        self.connections = 0  #: number of connections so far
        self._pairs: dict[socket.socket, tuple[socket.socket, deque[bytes]]] = {}
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Wire:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ends.set()
        self._thread.join()
        self.cut()
        self._listener.close()

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            while self._pairs:
                self._close(next(iter(self._pairs)))

    def _run(self) -> None:
        while not self._ends.is_set():
            with self._lock, selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                for end, (_, waiting) in self._pairs.items():
                    events = selectors.EVENT_READ * (not self.is_held and len(self._pairs[end][1]) < 100)
                    events |= selectors.EVENT_WRITE * (not self.is_held and bool(waiting))
                    if events:
                        selector.register(end, events)
                ready = selector.select(0.01)
                for key, events in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._move(key.fileobj, events)
            self._ends.wait(0.0005)

    def _accept(self) -> None:
        here, _ = self._listener.accept()
        self.connections += 1
        there = socket.socket()
        here.setblocking(False)
        try:
            if self.is_closed:
                raise ConnectionError
            there.connect(("127.0.0.1", self._to))
        except OSError:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            here.close()
            there.close()
            return
        there.setblocking(False)
        self._pairs[here] = (there, deque())
        self._pairs[there] = (here, deque())

    def _move(self, end: socket.socket, events: int) -> None:
        if end not in self._pairs:
            return
        other, waiting = self._pairs[end]
        try:
            if events & selectors.EVENT_READ:
                data = end.recv(65536)
                if not data:
                    raise ConnectionError
                self._pairs[other][1].append(data)
            if events & selectors.EVENT_WRITE:
                sent = end.send(waiting[0])
                waiting[0] = waiting[0][sent:]
                if not waiting[0]:
                    waiting.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._close(end)

    def _close(self, end: socket.socket) -> None:
        other, _ = self._pairs.pop(end)
        self._pairs.pop(other, None)
        for each in (end, other):
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.close()
