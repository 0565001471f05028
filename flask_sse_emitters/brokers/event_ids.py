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

_ALPHABET = string.digits + string.ascii_letters
_ID = re.compile(r"([0-9A-Za-z]{1,32})-(0|[1-9][0-9]{0,17})", re.ASCII)


class Position(NamedTuple):
    """How far a client got in one channel."""

    epoch: str  #: letters and digits
    offset: int  #: of the last event that the client has; 0 before the first

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


def new_epoch() -> str:
    """Draw an epoch at random: 5 letters and digits."""
    number, epoch = int.from_bytes(os.urandom(8), "big"), ""  # once: it asks the system, and each channel needs one
    for _ in range(EPOCH_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        epoch += _ALPHABET[index]
    return epoch


def read_ids(text: str, count: int) -> list[Position] | None:
    """Read the positions in this many channels from a stream's id; None where it is no such id."""
    if len(text) > MAX_ID_LENGTH:
        return None
    found = [_ID.fullmatch(part) for part in text.split(",")]
    if len(found) != count or not all(found):
        return None
    return [Position(match[1], int(match[2])) for match in found if match is not None]
