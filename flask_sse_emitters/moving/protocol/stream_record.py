"""What travels of one stream, beside its client's socket."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ReaderRecord:
    """The reader of a stream: see :class:`.Reader`.

    :param request: what is kept of it for asking the rule again; None where it cannot be.
    """

    identities: tuple[str, ...]
    channels: tuple[str, ...]
    asked: tuple[str, ...]
    request: bytes | None
    by_channel: tuple[str | None, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        request = None if self.request is None else b64encode(self.request).decode()
        lists = {"identities": self.identities, "channels": self.channels, "asked": self.asked}
        by_channel = None if self.by_channel is None else list(self.by_channel)
        return {**{name: list(value) for name, value in lists.items()}, "request": request, "by_channel": by_channel}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> ReaderRecord:
        """Read it from JSON.

        :raises ValueError: where it is none.
        """
        request = take(found, "request", str, None)
        return cls(
            identities=texts(found, "identities"),
            channels=texts(found, "channels"),
            asked=texts(found, "asked"),
            request=None if request is None else b64decode(request, validate=True),
            by_channel=_by_channel(found),
        )


@dataclass(frozen=True, kw_only=True)
class StreamRecord:
    """One stream. Times are of the wall clock, in seconds, because the two processes share no other.

    :param channels: each with the id that its client has of it, in the order of the stream.
    :param lists: the names of the named lists that it is in.
    :param is_chunked: the body is sent in chunks.
    :param rest: bytes that were taken for the client, and not written yet.
    :param born: when it was made.
    :param lifetime_part: of its ``timeout``: see :class:`.Deadlines`.
    :param ends_by: when its grant ends; None for never.
    :param written: when its client was last given something.
    :param address: of the client, for limits; None where that is unknown.
    :param own: the settings that its view has given: ``Settings.own``.
    :param attributes: that the app has set on its emitter.
    """

    channels: tuple[tuple[str, str], ...] = ()
    lists: tuple[str, ...] = ()
    is_chunked: bool
    rest: bytes = b""
    born: float
    lifetime_part: float = 1.0
    ends_by: float | None = None
    written: float
    address: str | None = None
    reader: ReaderRecord | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "channels": [list(each) for each in self.channels],
            "lists": list(self.lists),
            "is_chunked": self.is_chunked,
            "rest": self.rest.decode(errors="surrogateescape"),
            "born": self.born,
            "lifetime_part": self.lifetime_part,
            "ends_by": self.ends_by,
            "written": self.written,
            "address": self.address,
            "reader": None if self.reader is None else self.reader.as_json(),
            "own": dict(self.own),
            "attributes": dict(self.attributes),
        }

    @classmethod
    def of_json(cls, found: Any) -> StreamRecord:
        """Read it from JSON.

        :raises ValueError: where it is none.
        """
        if not isinstance(found, dict):
            raise ValueError("a stream is an object")
        reader = take(found, "reader", dict, None)
        return cls(
            channels=_channels(found),
            lists=texts(found, "lists"),
            is_chunked=take(found, "is_chunked", bool),
            rest=take(found, "rest", str).encode(errors="surrogateescape"),
            born=_number(found, "born"),
            lifetime_part=_number(found, "lifetime_part"),
            ends_by=None if found.get("ends_by") is None else _number(found, "ends_by"),
            written=_number(found, "written"),
            address=take(found, "address", str, None),
            reader=None if reader is None else ReaderRecord.of_json(reader),
            own=take(found, "own", dict),
            attributes=take(found, "attributes", dict),
        )


_REQUIRED: Any = object()


def take(found: Mapping[str, Any], name: str, kind: type[T], default: Any = _REQUIRED) -> Any:
    """Return a value of a JSON object.

    :param default: stands for null, and for one that is missing.
    :raises ValueError: where it is of another kind.
    """
    value = found.get(name)
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name!r} must be {kind.__name__}, not {type(value).__name__}")
    return value


def _number(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name!r} must be a number")
    return float(value)


def texts(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a list of str of a JSON object.

    :raises ValueError: where it is none.
    """
    values = take(found, name, list)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name!r} must be a list of str")
    return tuple(values)


def _by_channel(found: Mapping[str, Any]) -> tuple[str | None, ...] | None:
    values = take(found, "by_channel", list, None)
    if values is not None and not all(value is None or isinstance(value, str) for value in values):
        raise ValueError("'by_channel' must be a list of str and null")
    return None if values is None else tuple(values)


def _channels(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    pairs = take(found, "channels", list)
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise ValueError("'channels' must be a list of pairs: a name and an id")
    return tuple((name, position) for name, position in pairs)
