"""What a check finds, and what our own server has told it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .wire import Answer

Level: TypeAlias = Literal["ok", "note", "fault"]
Findings: TypeAlias = Iterator["Finding"]

_SAID = re.compile(r"([a-z\-]+)=([^;]*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """
    :ivar name: short, and the same for the same thing each time.
    :ivar seen: what was seen, with figures.
    :ivar mend: how to mend it, where it is a fault; what follows, where it is a note.
    """

    name: str
    level: Level
    seen: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What our own server says of a request: see :mod:`..probe`."""

    nonce: str
    protocol: str
    connection: str
    had_last_event_id: bool
    heartbeat: float
    comments: int
    every: float


def said(answer: Answer) -> Said | None:
    """None where no server of ours has answered, or a proxy has kept it from us."""
    nonce, _, rest = answer.value("Sse-Check").partition(";")
    values = dict(_SAID.findall(rest))
    try:
        found = Said(
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
    # Anybody may answer so; but nobody is waited for as long as he likes.
    is_ours = 0 <= found.heartbeat < math.inf and 0 <= found.comments <= 20 and 0 < found.every <= 1
    return found if is_ours else None
