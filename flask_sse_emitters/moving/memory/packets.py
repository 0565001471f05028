"""Items of any number and size, as messages of a limited size.

As many items as fit go into one message. One that is larger than a message is cut: its JSON goes as ``piece`` after
piece, of which the last says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..protocol.messages import MAX_MEMORY_BYTES, MemoryMessage, Part
from ..protocol.stream_record import take

#: The message around the items, at most.
_FRAME_BYTES = 200

#: A piece has so many characters; as JSON within JSON, each of them may take two.
_PIECE_LENGTH = MAX_MEMORY_BYTES // 2 - _FRAME_BYTES


class Packer:
    """Packs items that belong together into messages.

    :param number: tells them from the items of other messages on their way.
    """

    def __init__(self, part: Part, number: int) -> None:
        self._head = f'{{"type": "memory", "part": "{part}", "number": {number}, "items": ['
        self._items: list[str] = []
        self._room = MAX_MEMORY_BYTES - _FRAME_BYTES

    def add(self, item: Mapping[str, Any]) -> list[bytes]:
        """Add an item. Return the messages that are full."""
        text = json.dumps(item, allow_nan=False)
        full: list[bytes] = []
        for each in [text] if len(text) <= MAX_MEMORY_BYTES - _FRAME_BYTES else _pieces(text):
            if len(each) > self._room:
                full.append(self.flush())
            self._items.append(each)
            self._room -= len(each) + len(", ")
        return full

    def flush(self, *, is_last: bool = False) -> bytes:
        """Return a message of what has been added since the last one.

        :param is_last: nothing follows.
        """
        more = "false" if is_last else "true"
        items, self._items, self._room = self._items, [], MAX_MEMORY_BYTES - _FRAME_BYTES
        return f'{self._head}{", ".join(items)}], "more": {more}}}'.encode()


def pack(part: Part, number: int, items: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Pack all items at once."""
    packer = Packer(part, number)
    packets = [packet for item in items for packet in packer.add(item)]
    return [*packets, packer.flush(is_last=True)]


class Unpacker:
    """Returns the items of messages that belong together."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def unpack(self, message: MemoryMessage) -> list[Mapping[str, Any]]:
        """Return the items that are complete with this message.

        :raises ValueError: where what is in pieces is no item.
        """
        items: list[Mapping[str, Any]] = []
        for item in message.items:
            if "piece" not in item:
                items.append(item)
                continue
            self._pieces.append(take(item, "piece", str))
            if take(item, "is_last", bool):
                joined = json.loads("".join(self._pieces))
                self._pieces = []
                if not isinstance(joined, dict):
                    raise ValueError("an item is an object")
                items.append(joined)
        return items


def _pieces(text: str) -> list[str]:
    parts = [text[at : at + _PIECE_LENGTH] for at in range(0, len(text), _PIECE_LENGTH)]
    return [json.dumps({"piece": part, "is_last": part is parts[-1]}) for part in parts]
