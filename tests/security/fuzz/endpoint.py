"""Whatever the endpoints of channels are asked, they answer as is documented, keep nothing, and give away nothing.

An input is some requests as a client writes them, with a line ``---`` between two. ``{ann}``, ``{bob}`` and ``{carol}``
stand for what opens closed channels to them, ``{bad0}`` and so on for what opens nothing, ``{id:news}`` for the newest
id of that channel.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from zlib import crc32

from tests.apps.security import fuzzed as fuzz_app
from tests.apps.security.fuzzed import BAD_SESSIONS, BAD_TOKENS, SESSIONS, TOKENS
from tests.security.fuzz.in_process import Faults, InProcess
from tests.security.fuzz.requests import Request
from tests.support.waiting import until

#: What is documented, and what Flask answers where a request gets to no view or asks for part of a static file.
STATUSES = {*map(str, (200, 201, 204, 206, 304, 400, 401, 403, 404, 405, 411, 413, 415, 416))}

#: Of one input.
MOST_REQUESTS = 6

_CREDENTIALS = dict(zip(["ann", "bob", "carol"], [*TOKENS, *SESSIONS], strict=True))
_CREDENTIALS |= {f"bad{number}": bad for number, bad in enumerate([*BAD_TOKENS, *BAD_SESSIONS])}
_PLACEHOLDER = re.compile(rb"\{(?:id:)?[a-z0-9/~:@.]{1,30}\}")


class Dice(random.Random):
    """Let no stream be dropped without ``close()``: its deadline would cost half a second."""

    def random(self) -> float:
        return 0.9 * super().random()


def check(said: bytes) -> None:
    ids = fuzz_app.publish_everywhere(fuzz_app.sse)
    with Faults() as found:
        visitor = InProcess(Dice(crc32(said)))
        for request in requests(said, ids):
            visitor.ask(request)
        fuzz_app.publish_everywhere(fuzz_app.sse)
        visitor.read_all()
        visitor.end()
        until(lambda: fuzz_app.sse.stats()["clients"] == 0, "the streams to end")
        assert {status for status in visitor.counts if status.isdigit()} <= STATUSES, visitor.counts
        assert found == []


def requests(said: bytes, ids: dict[str, str]) -> Iterator[Request]:
    values = {**_CREDENTIALS, **{f"id:{name}": own for name, own in ids.items()}}

    def value(found: re.Match[bytes]) -> bytes:
        return values.get(found[0][1:-1].decode(), "").encode()

    for text in said.split(b"\n---\n")[:MOST_REQUESTS]:
        yield _request(_PLACEHOLDER.sub(value, text))


def _request(text: bytes) -> Request:
    head, _, body = text.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    target, _, version = target.partition(b" HTTP/")
    path, _, query = target.partition(b"?")
    headers = [(name, value.strip(b" ")) for name, colon, value in (line.partition(b":") for line in lines) if colon]
    return Request(method, path, query, headers, body, b"HTTP/1.0" if version == b"1.0" else b"HTTP/1.1")
