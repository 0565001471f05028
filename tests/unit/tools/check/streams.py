"""Servers that answer a check, and what it finds of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from click.testing import Result
from flask import Flask

from flask_sse_emitters import SSE
from flask_sse_emitters.tools.check import Finding, Plan, Target, check
from tests.support.cli import cli_runner
from tests.support.waiting import PATIENCE
from tests.support.web.tiny_server import Answering, Request, TinyServer, chunk, head

#: Seconds after which a check gives up to wait, in tests where nothing comes.
HURRY = 0.3

EVENT = chunk(b"id: 1\ndata: x\n\n")
GAP = chunk(b"event: gap\ndata: {}\n\n")
#: The only one that these servers write: a check that has it reads the first stream no longer.
COMMENT = chunk(b": check 1\n\n")

FRESH = "Cache-Control: no-cache"
COOKIE = ("Cookie", "session=1")


def header_for(request: Request, nonce: str | None = None, **claims: Any) -> str:
    """Return the header with which this package's server describes itself."""
    has_last = "yes" if "last-event-id" in request.headers else "no"
    values: dict[str, object] = {"protocol": "HTTP/1.1", "connection": "", "last_event_id": has_last}
    values |= {"heartbeat": 0.1, "comments": 1, "every": 0.1, **claims}
    claimed = "; ".join(f"{name.replace('_', '-')}={value}" for name, value in values.items())
    return f"Sse-Check: {nonce or request.nonce}; {claimed}"


def stream(
    *lines: str, kind: str = "text/event-stream", begin: bytes | None = None, is_silent: bool = False, **claims: Any
) -> Answering:
    """Return a server of streams without faults, unless headers, the first bytes or claims make some."""

    def answering(request: Request) -> Iterator[bytes]:
        yield head(header_for(request, **claims), *(lines or [FRESH]), kind=kind)
        yield opening(request) if begin is None else begin
        if is_silent:
            yield request.hold()
        while not request.hold(0.1):
            yield chunk(b":\n\n")

    return answering


good = stream()


def opening(request: Request) -> bytes:
    """Return the first chunks of a good stream."""
    return GAP if "last-event-id" in request.headers else EVENT + COMMENT


def ends_after(*pieces: bytes) -> Answering:
    return lambda _: iter(pieces)


def silent_after(*pieces: bytes) -> Answering:
    """Return another kind of server, which sends these pieces and then nothing."""

    def answering(request: Request) -> Iterator[bytes]:
        yield from pieces
        yield request.hold()

    return answering


def findings(answering: Answering, **plan: Any) -> dict[str, Finding]:
    with TinyServer(answering) as server:
        return findings_at(server.url, **plan)


def findings_at(url: str, headers: tuple[tuple[str, str], ...] = (), **plan: Any) -> dict[str, Finding]:
    """Return the findings by name; the check takes no longer than tests wait."""
    verifies = plan.pop("verifies", True)
    began = time.monotonic()
    found = check(Plan(Target.of(url, headers, verifies=verifies), **{"seconds": PATIENCE, **plan}), lambda _: None)
    assert time.monotonic() - began < PATIENCE
    names = [each.name for each in found if each.name != "redirect"]
    assert len(set(names)) == len(names)
    for each in found:
        assert each.fix or each.level != "fault", "a fault has a fix"
    return {each.name: each for each in found}


def faults(found: dict[str, Finding]) -> list[str]:
    return [name for name, finding in found.items() if finding.level == "fault"]


def invoked(*arguments: str) -> Result:
    app = Flask(__name__)
    SSE(app)
    return cli_runner(app).invoke(args=["sse", "check", *arguments])
