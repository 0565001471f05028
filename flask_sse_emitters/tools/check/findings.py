"""Define what a check finds, and read what a server with this package reports to it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .answer import Answer
from .connection import printable

Level: TypeAlias = Literal["ok", "note", "fault"]
Findings: TypeAlias = Iterator["Finding"]

_FIELD = re.compile(r"([a-z\-]+)=([^;]*)")
_WRITTEN = re.compile(rb"(?m)^: written (.{1,1000})$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    :ivar name: a short name of what was checked, the same each time.
    :ivar seen: what was seen, with numbers.
    :ivar fix: of a fault: how to fix it; of a note: what follows from it.
    """

    name: str
    level: Level
    seen: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a server with this package reports of a request: see :mod:`.server.probe`.

    :ivar heartbeat: seconds; 0 where there is none.
    :ivar comments: how many comments it writes, one every :attr:`every` seconds.
    """

    nonce: str
    protocol: str
    connection: str
    had_last_event_id: bool
    heartbeat: float
    comments: int
    every: float


@dataclass(frozen=True, slots=True)
class WriterReport:
    """What a server with this package says, in a comment, of who writes a stream.

    :ivar by: ``handoff``, or what of the server writes it: ``thread``, ``greenlet``.
    :ivar server: its name.
    :ivar threads: so many the server has for requests; 0 where that is unknown.
    :ivar why: why the stream is not handed off.
    """

    by: str
    server: str
    threads: int
    why: str


def read_writer_report(answer: Answer) -> WriterReport | None:
    """Return who writes the stream; None where no comment says so."""
    found = _WRITTEN.search(answer.body)
    values = dict(_FIELD.findall(found[1].decode("utf-8", "replace"))) if found else {}
    if values.get("by") not in ("handoff", "thread", "greenlet"):
        return None
    threads = values.get("threads", "")
    number = int(threads) if re.fullmatch(r"[0-9]{1,6}", threads) else 0
    return WriterReport(values["by"], printable(values.get("server", "")), number, printable(values.get("why", "")))


def read_server_report(answer: Answer) -> ServerReport | None:
    """Return the report; None where there is none: from another server, or one whose header a proxy removes."""
    nonce, _, rest = answer.value("Sse-Check").partition(";")
    values = dict(_FIELD.findall(rest))
    try:
        found = ServerReport(
            nonce.strip(),
            values["protocol"],
            values["connection"],
            values["last-event-id"] == "yes",
            float(values["heartbeat"]),
            int(values["comments"]),
            float(values["every"]),
        )
    except (KeyError, ValueError):
        return None
    # Any server may send this header, and must not keep a check waiting.
    is_valid = 0 <= found.heartbeat < math.inf and 0 <= found.comments <= 20 and 0 < found.every <= 1
    return found if is_valid else None
