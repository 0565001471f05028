"""The ids of a channel's events, by which clients say how far they got.

An id is ``<epoch>-<offset>``. Offsets count a channel's events from 1 without a hole. The epoch is drawn at random
whenever counting restarts, so that an id from before is never taken for one of now.

Offsets may also go on under another epoch: where a broker came back that may have lost its newest events, the next one
must not get the id of a lost one. A position in a former epoch then holds up to the offset where the epoch changed.
"""

from __future__ import annotations

import os
import re
import string
from typing import NamedTuple

#: With 5 characters of 62 and 9 digits, the ids of 8 channels have 127 bytes with their commas.
EPOCH_LENGTH = 5

#: No stream's id has more characters; a longer one that a client sends was not made here.
MAX_ID_LENGTH = 2048

#: The letter or digit that stands for each byte. Some of the 62 come a little more often, which does no harm.
_LETTER_OF_BYTE = ((string.digits + string.ascii_letters) * 5)[:256].encode()
_ID = re.compile(r"([0-9A-Za-z]{1,32})-(0|[1-9][0-9]{0,17})", re.ASCII)


class Position(NamedTuple):
    """How far a client got in one channel."""

    epoch: str  #: letters and digits
    offset: int  #: of the last event that the client has; 0 before the first

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


def new_epoch() -> str:
    """Draw an epoch at random: 5 letters and digits."""
    return new_epochs(1)


def new_epochs(count: int) -> str:
    """Draw several epochs, one after the other in one text."""
    return os.urandom(count * EPOCH_LENGTH).translate(_LETTER_OF_BYTE).decode()


def read_id(text: str) -> Position | None:
    """Read the id of one event; None where it is none."""
    match = _ID.fullmatch(text)
    return None if match is None else Position(match[1], int(match[2]))


def read_ids(text: str, count: int) -> list[Position] | None:
    """Read the positions in this many channels from a stream's id; None where it is no such id."""
    if len(text) > MAX_ID_LENGTH:
        return None
    found = [position for part in text.split(",") if (position := read_id(part)) is not None]
    return found if len(found) == count == text.count(",") + 1 else None
