"""A socket and an epoll that take what a test lets them take."""

from __future__ import annotations

from typing import Any


class Socket:
    """A socket that takes ``room`` bytes, and then no more until it has room again."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.got = b""
        self.is_awaited = False

    def send(self, data: Any) -> int:
        if not self.room:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.got += taken
        return len(taken)

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...

    def recv(self, _size: int) -> bytes:
        return b""

    def body(self) -> bytes:
        """Return what was sent, without the chunk lengths."""
        rest, body = self.got, b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return body


class FakeMonitor:
    """A stand-in for the process's one epoll."""

    def watch(self, client: Any, watcher: Any) -> Any:
        client.is_registered, client.watcher = True, watcher
        return client

    def await_room(self, watch: Any) -> None:
        watch.is_awaited = True

    def unsent(self, _watch: Any) -> int | None:
        return None

    def acknowledged(self, _watch: Any) -> int | None:
        return None

    def forget(self, watch: Any) -> None: ...
