"""Where a client without an id begins in a channel: ``"now"``, ``"first"``, ``"last"``, ``"last:20"`` or ``"60s"``."""

from __future__ import annotations

import re
from typing import NamedTuple

#: A channel keeps at most so many events, or for so long, as anyone asks for: larger numbers mean all that is kept.
MOST = 10**9

_COUNT = re.compile(r"last:([1-9][0-9]{0,17})", re.ASCII)
_SECONDS = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)s", re.ASCII)


class Since(NamedTuple):
    """Where a client without an id begins: before whichever of these comes first."""

    events: int = 0  #: the newest so many
    seconds: float = 0.0  #: what was published in so many seconds


NOW = Since()
FIRST = Since(events=MOST)


def parse_since(text: object) -> Since:
    """Return what the text says.

    :raises ValueError: names the forms that it may have.
    """
    known = {"now": NOW, "first": FIRST, "last": Since(events=1)}
    if isinstance(text, str):
        if text in known:
            return known[text]
        if count := _COUNT.fullmatch(text):
            return Since(events=min(int(count[1]), MOST))
        if seconds := _SECONDS.fullmatch(text):
            return Since(seconds=min(float(seconds[1]), float(MOST)))
    shown = repr(text) if len(str(text)) <= 40 else f"a text of {len(str(text))} characters"
    raise ValueError(f"since must be 'now', 'first', 'last', 'last:20' or '60s', not {shown}")
