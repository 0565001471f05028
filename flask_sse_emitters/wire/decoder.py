"""Decoding a stream as a browser does: WHATWG HTML, section 9.2.6."""

from __future__ import annotations

import codecs

from .event import Event, split_lines


class EventDecoder:
    """Decodes an event stream in pieces, cut anywhere, into the events that a browser would dispatch.

    An event's name is None for ``"message"``; its id is the last one in force, or None before the first. Comments,
    ``retry``, blocks without data and an unfinished block at the end are no events.
    """

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._unfinished: list[str] = []  # the pieces so far of the line whose end has not come yet
        self._after_cr = False  # a CR ended the last line: an LF right after it belongs to that line end
        self._data: list[str] = []
        self._event: str | None = None
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """Decode these bytes, and return the events that they complete."""
        text = self._utf8.decode(chunk)
        if self._after_cr and text:
            self._after_cr = False
            text = text.removeprefix("\n")
        if not text:
            return []
        self._after_cr = text.endswith("\r")
        first, *others = split_lines(text)
        self._unfinished.append(first)
        if not others:
            return []
        lines = ["".join(self._unfinished), *others[:-1]]
        self._unfinished = others[-1:]
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._event
        self._data, self._event = [], None
        if not data:
            return None
        return Event("\n".join(data), event=None if name in (None, "", "message") else name, id=self._id)


def decode(stream: bytes) -> list[Event]:
    """Decode a whole stream, as :class:`EventDecoder` does."""
    return EventDecoder().feed(stream)
