"""The reader of a soak client, which checks each byte: nothing missing, repeated or out of order."""

from __future__ import annotations

import re

from tests.faults.chunked_body import WrongSequence
from tests.faults.soak.events import Tape
from tests.support.waiting import PATIENCE

_POSITION = re.compile(rb"id: (.+)-(\d+)")
_EVENT = re.compile(rb"id: .+-(\d+)\n(?!data: \{)")


class Reader:
    """Compares what a client gets with the tape of its channel, over all its connections.

    :ivar at: the position on the tape; None until a new client is told where it begins.
    """

    __slots__ = ("_came", "_first", "_has_text", "_rest", "_tape", "at")

    def __init__(self, tape: Tape) -> None:
        self.at: int | None = None
        self._tape = tape
        self._first = 0  # the event that it began after
        self._has_text = False  # on this connection
        self._rest = b""
        self._came = 0.0

    def comes(self, now: float) -> bytes:
        """Begin with a connection.

        :return: the id that the client comes with; b"" for one that is new.
        """
        self._came = now
        self._rest = b""
        self._has_text = False
        if self.at is None:
            return b""
        number = self._tape.number_at(self.at)
        self.at = self._tape.after(number)  # a browser keeps no half of an event
        return b"%b-%d" % (self._tape.epoch or b"", number)

    def take(self, text: bytes, now: float) -> None:
        """Check the next text of the body.

        :raises WrongSequence: if anything else was expected.
        """
        if not text:
            return
        self._has_text = True
        if self._tape.epoch is not None:
            self._tape.grow()
        if self._rest:
            text, self._rest = self._rest + text, b""
        if self.at is not None and self._tape.has(self.at, text):
            self.at += len(text)
            return
        self._take_blocks(text, now)

    @property
    def is_reading(self) -> bool:
        """Whether its stream is open and has a position."""
        return self._has_text and self.at is not None

    @property
    def number(self) -> int:
        """The number of its last event; 0 before the first."""
        return 0 if self.at is None else self._tape.number_at(self.at)

    @property
    def events(self) -> int:
        """The number of events that it has got."""
        return self.number - self._first

    def _take_blocks(self, text: bytes, now: float) -> None:
        if self.at is not None:
            begin = self._tape.after(self._tape.number_at(self.at))
            text, self.at = self._tape.between(begin, self.at) + text, begin
        *blocks, rest = text.split(b"\n\n")
        for block in blocks:
            self._take_block(block + b"\n\n", now)
        if self.at is not None and self._tape.has(self.at, rest):
            self.at += len(rest)
        else:
            self._rest = rest

    def _take_block(self, block: bytes, now: float) -> None:
        if self.at is not None and self._tape.has(self.at, block):
            self.at += len(block)
        elif block.startswith((b":", b"retry: ")) and b"data:" not in block and b"id:" not in block:
            return
        elif self.at is None and (found := _POSITION.fullmatch(block[:-2])):
            self._begin_after(found[1], int(found[2]), now)
        else:
            raise WrongSequence(self._story(block))

    def _begin_after(self, epoch: bytes, number: int, now: float) -> None:
        """Start a new client at its position: neither beyond the published events, nor far in the past."""
        tape = self._tape
        tape.epoch = tape.epoch or epoch
        if tape.epoch != epoch:
            raise WrongSequence(f"got ids of {epoch!r}, while others have {tape.epoch!r}")
        tape.grow()
        if number > tape.newest:
            raise WrongSequence(f"is to begin after event {number}, when {tape.newest} were published")
        following = tape.times[number + 1] if number + 1 < len(tape.times) else 0.0
        if following and following < self._came - PATIENCE:
            raise WrongSequence(f"begins with event {number + 1}, {now - following:.1f} s after it was published")
        self.at, self._first = tape.after(number), number

    def _story(self, block: bytes) -> str:
        if self.at is None:
            return f"got {block!r} before it was told where it begins"
        expected = self._tape.number_at(self.at) + 1
        if found := _EVENT.match(block):
            number = int(found[1])
            what = "again, or out of order" if number < expected else "with others missing before it"
            what = what if number != expected else f"as {block!r}, which was not published"
            return f"got event {number} {what}: event {expected} is next of {self._tape.newest}"
        return f"got {block!r}, where event {expected} is next of {self._tape.newest}"
