"""Events and their encoding: WHATWG HTML, sections 9.2.5 and 9.2.6."""

from __future__ import annotations

import json
import operator
import re
import reprlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, TypeAlias

from ..errors import InvalidEvent

Dumps: TypeAlias = Callable[[Any], str | bytes]


@dataclass(frozen=True, slots=True)
class Event:
    """An immutable event, which may be sent any number of times, to any number of clients.

    :param data: a ``str`` is sent as it is, None means no data line (browsers then dispatch nothing), anything else
        is sent as JSON, which has no NaN and no infinities. Line ends (CR, LF and CRLF) reach the client as LF; nothing
        else is changed.
    :param event: the name that ``addEventListener`` takes, one line; None is ``"message"``.
    :param id: a reconnecting client sends it back as ``Last-Event-ID``: an int, or a str of one line without NUL.
    :param retry: how long a client waits before it reconnects, an int of milliseconds, 0 or more.
    :param comment: text that clients ignore, any number of lines.
    :raises InvalidEvent: at once, and names the field, where one of these does not hold.
    """

    data: Any = None
    _: KW_ONLY
    event: str | None = None
    id: str | int | None = None
    retry: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        for part in _parts(self.data):
            if isinstance(part, str):
                _check("data", part)
        if self.event is not None:
            _check("event", self.event, forbidden="\r\n")
        if self.id is not None and not _is_int(self.id):
            _check("id", self.id, forbidden="\r\n\0")
        if self.id is not None or self.retry is not None:
            for field, number in (("id", self.id), ("retry", self.retry)):
                if _is_int(number) and abs(number) >= _TOO_LARGE:  # type: ignore[arg-type]
                    raise InvalidEvent(f"{field} is an int of more than 1,000 digits")
        if self.retry is not None and not (_is_int(self.retry) and self.retry >= 0):
            raise InvalidEvent(f"retry must be an int of milliseconds, 0 or more, not {self.retry!r}")
        if self.comment is not None:
            _check("comment", self.comment)

    @classmethod
    def parse(cls, text: str | bytes) -> Event:
        r"""Make an event of the lines in which another program has encoded it: ``"event: tick\ndata: 1\n\n"``.

        Lines are read as the standard says: a field with another name is ignored, as is an id with a NUL, and a retry
        that is not all digits.

        :raises InvalidEvent: where there is more than one event.
        """
        lines = split_lines(text if isinstance(text, str) else _decoded(text))
        while lines and not lines[-1]:
            lines.pop()
        if "" in lines:
            raise InvalidEvent(f"parse() takes one event, and a blank line begins another: {reprlib.repr(text)}")
        fields: dict[str, list[str]] = {name: [] for name in ("", "data", "event", "id", "retry")}
        for line in lines:
            name, _, value = line.partition(":")
            fields.get(name, []).append(value.removeprefix(" "))
        data, comments = fields["data"], fields[""]
        ids = [value for value in fields["id"] if "\0" not in value]
        retries = [value for value in fields["retry"] if value.isascii() and value.isdigit()]
        return cls(
            "\n".join(data) if data else None,
            event=fields["event"][-1] if fields["event"] else None,
            id=ids[-1] if ids else None,
            retry=int(retries[-1]) if retries else None,
            comment="\n".join(comments) if comments else None,
        )

    def encode(self, dumps: Dumps = json.dumps) -> bytes:
        """Encode the event as a stream carries it, with the blank line that ends it.

        :param dumps: makes JSON, as str or as UTF-8 bytes, of data that is neither str nor None.
        :raises InvalidEvent: where it cannot.
        """
        text = "\n".join([*self._lines(dumps), "", ""])
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise InvalidEvent(
                f"the JSON made of data holds a lone surrogate, which UTF-8 cannot carry: {error}"
            ) from error

    def _lines(self, dumps: Dumps) -> list[str]:
        lines: list[str] = []
        if self.comment is not None:
            lines += [f": {line}" for line in split_lines(plain_text(self.comment))]
        if self.id is not None:
            lines.append(f"id: {_plain(self.id)}")
        if self.event is not None:
            lines.append(f"event: {plain_text(self.event)}")
        if self.retry is not None:
            lines.append(f"retry: {_plain(self.retry)}")
        for part in _parts(self.data):
            text = plain_text(part) if isinstance(part, str) else _json(part, dumps)
            lines += [f"data: {line}" for line in split_lines(text)]
        return lines


class EventBuilder:
    """Builds an :class:`Event` step by step: ``SseEmitter.event().name("connect").data("connected!")``.

    A builder may be passed wherever an event may, and sent any number of times. A step raises :class:`InvalidEvent` as
    :class:`Event` does, and then leaves the builder unchanged. Only one thread at a time may build.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = Event()

    def id(self, id: str | int) -> EventBuilder:
        """Set the id, which a reconnecting client sends back as ``Last-Event-ID``."""
        self._event = replace(self._event, id=id)
        return self

    def name(self, name: str) -> EventBuilder:
        """Set the event's name, which ``addEventListener`` takes."""
        self._event = replace(self._event, event=name)
        return self

    def data(self, data: Any) -> EventBuilder:
        """Set the data, or add to it on a new line. Anything but a str becomes JSON."""
        parts = (*_parts(self._event.data), *_parts(data))
        together: Any = parts[0] if len(parts) == 1 else _DataLines(parts)
        if len(parts) > 1 and all(isinstance(part, str) for part in parts):
            together = "\n".join(
                map(_with_lf, parts)
            )  # a CR before the LF that joins them would form one line end with it
        self._event = replace(self._event, data=together if parts else None)
        return self

    def comment(self, comment: str) -> EventBuilder:
        """Set the comment, or add to it on a new line."""
        _check("comment", comment)
        before = self._event.comment
        self._event = replace(self._event, comment=comment if before is None else f"{_with_lf(before)}\n{comment}")
        return self

    def retry(self, retry: int) -> EventBuilder:
        """Set how long the client waits before it reconnects, an int of milliseconds."""
        self._event = replace(self._event, retry=retry)
        return self

    def build(self) -> Event:
        """Return the event built so far, which further steps do not change."""
        return self._event


#: Data of these types is plain: no event, nor anything else that is more than its value.
PLAIN_TYPES = frozenset({str, dict, list, int, float, bool})


def encode_plain(data: Any, name: str | None, dumps: Dumps) -> bytes | None:
    """Encode data of one of PLAIN_TYPES, in a third of the time that an :class:`Event` takes.

    :return: None where an event is to be made of it, which says what is wrong.
    """
    text = data if type(data) is str else _json(data, dumps)
    if "\n" in text or "\r" in text:
        text = "\ndata: ".join(split_lines(text))
    try:
        if name is None:
            return b"data: %b\n\n" % text.encode()
        return None if "\n" in name or "\r" in name else b"event: %b\ndata: %b\n\n" % (name.encode(), text.encode())
    except UnicodeEncodeError:
        return None


def event_of(data: Any, event: str | None = None, id: str | int | None = None, retry: int | None = None) -> Any:
    """Return the event that a sender has given by its data and other fields; data alone, or an event, as it is.

    :raises InvalidEvent: where it is made already, and other fields are given as well.
    """
    if event is None and id is None and retry is None:
        return data
    if is_made(data):
        raise InvalidEvent("an Event is sent as it is: set its name, id and retry where it is made, not beside it")
    return Event(data, event=event, id=id, retry=retry)


def is_made(data: object) -> bool:
    """Return whether this is an event already, or a builder's, or one that another package has encoded."""
    return isinstance(data, Event | EventBuilder) or _is_encoded(data)


def as_event(event: Any) -> Event:
    """Return an event itself, the event of a builder, the one that another package has encoded, or one with data."""
    if isinstance(event, Event):
        return event
    if isinstance(event, EventBuilder):
        return event.build()
    return Event.parse(event) if _is_encoded(event) else Event(event)


def _is_encoded(event: object) -> bool:
    """Return whether it is an event of datastar-py, which is a str of its lines."""
    kinds = type(event).__mro__ if isinstance(event, str) and type(event) is not str else ()
    return any(kind.__name__ == "DatastarEvent" for kind in kinds)


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"parse() takes UTF-8: {error}") from error


# The group matches what Python's json writes for NaN and the infinities; strings, which may hold the same, are skipped.
_NOT_FINITE = re.compile(r'"(?:[^"\\]++|\\.)*+"|(?<![^\s:,\[])(NaN|-?Infinity)(?![^\s,\]}])')

_TOO_LARGE = 10**1000  # Python writes no int of many more digits


@dataclass(frozen=True, slots=True)
class _DataLines:
    """Holds several parts of data given to a builder that are not all text: each is encoded on its own.

    Not a tuple: an event whose data is a tuple is sent as one JSON array, and must not equal an event of several lines.
    """

    parts: tuple[Any, ...]


def _parts(data: Any) -> tuple[Any, ...]:
    if isinstance(data, _DataLines):
        return data.parts
    return () if data is None else (data,)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(field: str, text: object, forbidden: str = "") -> None:
    if not isinstance(text, str):
        kind = "a str or an int" if field == "id" else "a str"
        raise InvalidEvent(f"{field} must be {kind}, not {reprlib.repr(text)}")
    for character in forbidden:
        if character in text:
            raise InvalidEvent(f"{field} must not contain {character!r}: {reprlib.repr(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidEvent(f"{field} holds a lone surrogate, which UTF-8 cannot carry: {error}") from error


def plain_text(text: str) -> str:
    """Return the text as a plain str, not of a subclass.

    A member of a str enum formats as ``Role.ADMIN``, and a ``LocalProxy`` of Werkzeug passes for a str.
    """
    if type(text) is str:
        return text
    return str.__str__(text if issubclass(type(text), str) else text[:])


def _plain(value: str | int) -> str:
    return plain_text(value) if isinstance(value, str) else int.__repr__(operator.index(value))


def _json(data: Any, dumps: Dumps) -> str:
    try:
        encoded = dumps(data)
        text = encoded if isinstance(encoded, str) else str(encoded, "utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(data).__name__
        raise InvalidEvent(f"data of type {kind} cannot be made JSON ({error}); send a str instead") from error
    if ("NaN" in text or "Infinity" in text) and (found := next(filter(None, _NOT_FINITE.findall(text)), None)):
        raise InvalidEvent(
            f"data holds {found}, which is not valid JSON: browsers cannot parse it. Send None in its place, or "
            "have app.json write it as null"
        )
    return text


def _with_lf(text: str) -> str:
    return "\n".join(split_lines(text))


def split_lines(text: str) -> list[str]:
    """Split at CR, LF and CRLF, the standard's only line ends: ``str.splitlines`` knows seven more."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")
