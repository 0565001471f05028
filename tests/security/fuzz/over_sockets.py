"""Send generated requests to a server as bytes, some of them broken, and judge each answer."""

from __future__ import annotations

import random
import re
import socket
import struct
from collections import Counter
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlencode

from tests.security.fuzz.requests import BROKEN, HELD, LAST, SECRET, Generator, Request, draw_steering
from tests.support.client import post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE


class Visit(NamedTuple):
    """A connection, its requests, and the answers."""

    requests: list[Request]
    socket: socket.socket
    answers: bytearray


class OverSockets:
    """Sends requests to a server as bytes, some of them broken, with some streams open meanwhile."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.last = b""
        self._server = server
        self._dice = dice
        self._generator = Generator(dice)
        self._held: list[Visit] = []

    def step(self) -> int:
        """Send some requests on one connection.

        :return: how many.
        """
        dice = self._dice
        if dice.random() < 0.05:
            self._generator.ids = post(self._server, f"/steer?{urlencode(draw_steering(dice))}")["ids"]
        requests = [self._generator.request() for _ in range(dice.choice((1, 1, 3, 6)))]
        messages = [request.raw(framed=dice.random() < 0.8) for request in requests]
        is_whole = not any(b"length" in message.lower() or b"encoding" in message.lower() for message in messages)
        if dice.random() < 0.2:
            at, is_whole = dice.randrange(len(messages)), False
            messages[at] = dice.choice(BROKEN) if dice.random() < 0.5 else self._generator.mutated(messages[at])
        self.last = b"".join([*messages, LAST])
        visit = Visit(requests, socket.create_connection(("127.0.0.1", self._server.port), PATIENCE), bytearray())
        with suppress(ConnectionError):
            visit.socket.sendall(self.last)
            if not is_whole:  # the server may wait for more
                with suppress(OSError):  # or has closed already
                    visit.socket.shutdown(socket.SHUT_WR)
            while b"retry: " not in visit.answers and (piece := visit.socket.recv(65_536)):
                visit.answers.extend(piece)
        self._held.append(visit)
        if b"retry: " not in visit.answers or len(self._held) > HELD:
            self._leave(self._held.pop(-1 if b"retry: " not in visit.answers else dice.randrange(HELD)))
        return len(requests)

    def end(self) -> None:
        while self._held:
            self._leave(self._held.pop())

    def _leave(self, visit: Visit) -> None:
        with visit.socket, suppress(ConnectionError, BlockingIOError):
            visit.socket.setblocking(False)
            visit.answers.extend(visit.socket.recv(65_536))
            if self._dice.random() < 0.3:  # with a reset
                visit.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", visit.answers, re.MULTILINE):
            self.counts[status.decode()] += 1
            # gunicorn's own, of RFC 9112, section 6.1
            known = status == b"501" and b"Unsupported transfer coding" in visit.answers
            assert status < b"500" or known, f"{bytes(visit.answers)!r} to {visit.requests}"
        self.counts["streams"] += visit.answers.count(b": stream open")
        for channel in SECRET.findall(visit.answers):
            self.counts["secrets"] += 1
            assert any(request.may_see(channel.decode()) for request in visit.requests), (visit.requests, visit.answers)
