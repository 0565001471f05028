"""Attempts to read or publish without the right to: one request each, and the judge of its answer.

Each is sent as it is, unlike what a client would make of it. Secrets are published before it and while it runs, to all
channels of bob; bob reads them, which proves that they went out.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead
from typing import Any

import jwt
import pytest

from tests.support.client import connected, get, new_name, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

#: The sites of ``tests/apps/security/attempts.py``; the first one is at the root.
SITES = ["", "/posts", "/listed", "/anyone", "/jwt", "/jwt-anywhere"]
BOBS = ["secret", "team/b", "~bob"]
OTHERS = ["news", "open", "team/a", "~alice"]
ASKED_BY_BOB = "channel=secret&channel=team/b&channel=~"
KEY = new_name() + new_name()
PUBLISHER = f"Bearer {new_name()}"
BODIES = {401: b"Unauthorized\n", 403: b"Forbidden\n"}
FORGED = "eyJ1c2VyIjoiYm9iIn0.ZzZzZz.c2lnbmF0dXJlIG9mIG5vYm9keSE"  # {"user":"bob"}
EVIL = "Origin: https://evil.example"
LISTED = "Origin: https://listed.example"


GEVENT, GTHREAD = [
    pytest.param(kind, id=kind, marks=pytest.mark.xdist_group(f"attempts on {kind}")) for kind in ("gevent", "gthread")
]

#: For attempts whose outcome cannot depend on the worker: both kinds have one parser, and the rest is the library's.
on_gevent = pytest.mark.parametrize("world", [GEVENT], indirect=True)
on_gthread = pytest.mark.parametrize("world", [GTHREAD], indirect=True)


def token(key: str = KEY, **claims: Any) -> str:
    """Make a token of bob with these claims in place of his."""
    own = {"sub": "bob", "aud": "streams", "sse": ["secret", "team/b", "~"], "exp": int(time.time()) + 600}
    return jwt.encode(own | claims, key, "HS256")


class World:
    """A server, and the cookies of its users."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies = {"alice": self.login("alice"), "bob": self.login("bob")}

    def login(self, user: str) -> str:
        with connected(self.server, f"/login/{user}") as client:
            return client.response.getheader("Set-Cookie", "").partition(";")[0]

    def publish(self, site: str, channels: list[str], data: str) -> dict[str, str]:
        found: dict[str, str] = post(self.server, f"{site}/publish", {"channels": channels, "data": data})
        return found

    def stats(self, site: str) -> dict[str, Any]:
        found: dict[str, Any] = get(self.server, f"{site}/stats")
        return found

    def credentials_of_bob(self, site: str) -> dict[str, str]:
        """Return the headers that bob sends."""
        return {"Authorization": f"Bearer {token()}"} if "jwt" in site else {"Cookie": self.cookies["bob"]}


class Outsider:
    """Sends bytes, and keeps the head and the body that it receives."""

    def __init__(self, world: World, sent: bytes, buffer: int = 0) -> None:
        self.body = b""
        self._socket = socket.socket()
        if buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", world.server.port))
        self._socket.sendall(sent)
        self._response = HTTPResponse(self._socket)
        self._response.begin()
        self.status = self._response.status
        self.head = [f"{name}: {value}".lower() for name, value in self._response.getheaders()]

    def __enter__(self) -> Outsider:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._socket.close()

    def read_until(self, there: bytes) -> None:
        while there not in self.body and (came := self._response.read1()):
            self.body += came

    def read_to_end(self) -> None:
        """Read everything up to a clean end; raise if there is none."""
        while came := self._response.read1():
            self.body += came
        self.__exit__()  # at once: some servers wait for it


@dataclass(frozen=True)
class Attempt:
    """One request. ``{secret}`` and ``{private}`` stand for the last ids of these channels, ``{good}`` for a token."""

    tried: str
    target: str
    status: int
    user: str = "alice"  #: the user of its session
    method: str = "GET"
    headers: tuple[str, ...] = ()
    body: bytes = b""
    token: Callable[[], str] | None = None
    reaches: bool = False  #: whether the request is allowed, so that the secrets arrive
    present: tuple[str, ...] = ()  #: lines that the answer's head has
    absent: str = "X-Injected"  #: begins no line of the answer's head

    @property
    def site(self) -> str:
        return next((site for site in SITES[1:] if self.target.startswith(f"{site}/")), "")

    def request(self, world: World, ids: dict[str, str]) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: 127.0.0.1:{world.server.port}", "Connection: close"]
        lines += [f"Cookie: {world.cookies[self.user]}"] if self.user else []
        lines += [f"Authorization: Bearer {self.token()}"] if self.token is not None else []
        lines += self.headers
        text = "\r\n".join(lines)
        values = {"secret": ids["secret"], "private": ids["~bob"], "port": str(world.server.port), "good": token()}
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text.encode() + b"\r\n\r\n" + self.body


def check_attempt(world: World, attempt: Attempt) -> None:
    """Check that it gets the status, and no byte of a secret; or all of them, where it is allowed."""
    site, (before, during, last) = attempt.site, (new_name(), new_name(), new_name())
    with connected(world.server, f"{site}/events?{ASKED_BY_BOB}", headers=world.credentials_of_bob(site)) as bob:
        ids = world.publish(site, BOBS, before)
        stats = world.stats(site)
        with Outsider(world, attempt.request(world, ids)) as outsider:
            is_stream = attempt.method != "HEAD" and "content-type: text/event-stream" in outsider.head
            if not is_stream:
                # A head alone; or a server did not read all that was sent.
                with suppress(IncompleteRead, ConnectionResetError):
                    outsider.read_to_end()
            world.publish(site, BOBS, during)
            world.publish(site, [*BOBS, *OTHERS], last)
            if is_stream:
                outsider.read_until(last.encode())
        texts = bob.texts(9)
        if outsider.status != 200:
            until(
                lambda: (now := world.stats(site))["opened"] == stats["opened"] and now["channels"] == stats["channels"]
            )
    # In any order: that of the events of different channels is not promised.
    assert sorted(texts) == sorted([before, during, last] * 3), "and nothing else"
    got = "\n".join(outsider.head).encode() + outsider.body
    assert outsider.status == attempt.status, got
    assert (before.encode() in got, during.encode() in got) == (False, attempt.reaches)
    check_answer(outsider, attempt)


def check_answer(outsider: Outsider, attempt: Attempt) -> None:
    assert set(map(str.lower, attempt.present)) <= set(outsider.head)
    assert not [line for line in outsider.head if line.startswith(attempt.absent.lower())]
    assert any(line.startswith("www-authenticate: bearer") for line in outsider.head) == (outsider.status == 401)
    assert b"Traceback" not in outsider.body
    assert b"\ndata: injected" not in outsider.body
    if attempt.method == "HEAD":
        assert outsider.body == b""
    else:
        assert outsider.body == BODIES.get(outsider.status, outsider.body)
