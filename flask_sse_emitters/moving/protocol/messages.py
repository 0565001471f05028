"""The protocol by which a worker that stops gives its open streams to one that stays. Version 1.

Each worker that stays listens on a unix socket of packets (``SOCK_SEQPACKET``), see :mod:`..meeting.folder`. The one
that stops connects, and speaks first. A packet is one message: a JSON object, which a person can read::

    it stops   {"type": "hello", "version": 1, "terms": {"app": "shop", "package": "0.1.0", ...}}
    it stays   {"type": "welcome"}
    it stops   {"type": "prepare", "batch": 1, "channels": ["orders", ...]}
    it stays   {"type": "prepared", "batch": 1}
    it stops   {"type": "offer", "batch": 1, "streams": [{"channels": [["orders", "x7Kq2-41"]], ...}, ...]}
    it stays   {"type": "answer", "batch": 1, "refused": {"0": "limit"}}

* ``hello``: what must be equal on both sides, see :class:`.Terms`. Where it is not, the other one answers
  ``{"type": "refusal", "reason": "settings", "detail": "timeout is 60.0 there, and 1800.0 here"}`` and closes. The
  ``version`` is read before all else, so that later ones may change the rest.
  A worker that begins to stop itself sends it later: what was offered and not answered for by then it has not received.
* ``prepare``: the channels of the next offer. The one that stays listens to them, so that the streams need not wait for
  that once they are frozen, and says ``prepared``; until then the one that stops goes on delivering. It is not sent
  where the other one has all of these channels.
* ``offer``: at most 250 streams, see :class:`.StreamRecord`. The packet carries the descriptor of each client's socket
  (``SCM_RIGHTS``), in the same order. The kernel takes 253 at a time. One more offer may follow before the answer to
  this one, so that the other side need not wait for it; each is answered in turn.
* ``answer``: names the streams that are refused, by their place in the offer, with a reason. All others are adopted:
  the one that stops closes its descriptors of those, without ``shutdown``, which would end the connection for both.

Where channels are kept in memory (``memory://``), they go along, before the first offer::

    it stops   {"type": "memory", "part": "state", "number": 0, "items": [{"channel": "a", ...}, ...], "more": true}
    it stops   {"type": "memory", "part": "ask", "number": 1, "items": [{"do": "start_run", ...}], "more": false}
    it stays   {"type": "memory", "part": "answer", "number": 1, "items": [{"value": "x7Kq2"}], "more": false}
    it stays   {"type": "memory", "part": "told", "number": 0, "items": [{"channel": "a", ...}, ...], "more": false}

* ``state``: all that is kept of each channel, see :mod:`.moving.memory.items`. Once a channel has been sent, it belongs
  to the one that stays. The last of these messages has no ``more``. They need no answer: what follows comes after them.
* ``ask``: what is still published to these channels by the one that stops, at any time until it exits, and what its
  runs do. The ``number`` is repeated by the ``answer``. These may come between offers, and between their answers.
* ``told``: each event that these channels get from then on, for the streams that have not moved yet.

Both sides leave by closing the socket. A stream that was offered and not answered for belongs to neither.

Bytes of a stream stand as text, of which lone surrogates stand for what is no UTF-8: a piece may begin within a
character.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from .stream_record import StreamRecord, take, texts
from .terms import Terms

VERSION = 1

#: A message about channels in memory has so many bytes at most.
MAX_MEMORY_BYTES = 100_000

#: An offer has so many streams at most.
MAX_STREAMS = 250

Reason: TypeAlias = Literal[
    "version",  # the protocol's is another
    "app",  # there is no such app
    "package",  # another version of this package
    "settings",  # the app's config has changed
    "broker",  # the channels are elsewhere
    "stopping",  # it stops itself
    "limit",  # it has as many streams as it may
    "history",  # what the client has missed is no longer kept
    "descriptors",  # it can open no more files
    "list",  # it has no list of that name
    "failed",  # for a reason that its log has
]


@dataclass(frozen=True)
class Hello:
    """Opens the exchange.

    :param terms: None where the version is another.
    """

    version: int
    terms: Terms | None


@dataclass(frozen=True)
class Welcome:
    """Says that offers are awaited."""


@dataclass(frozen=True)
class Refusal:
    """Says that no offers are taken, and why.

    :param detail: the same for people.
    """

    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Prepare:
    """Says which channels streams will come from, with the offer of this number."""

    batch: int
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """Says that this process listens to those channels, or has tried to for long enough."""

    batch: int


@dataclass(frozen=True)
class Offer:
    """Gives streams, whose descriptors come with it in the same order."""

    batch: int
    streams: tuple[StreamRecord, ...]


@dataclass(frozen=True)
class Answer:
    """Answers for each stream of an offer.

    :param refused: the reason, by the place of the stream in the offer.
    """

    batch: int
    refused: Mapping[int, Reason]


Part: TypeAlias = Literal["state", "ask", "answer", "told"]


@dataclass(frozen=True)
class MemoryMessage:
    """Is about channels that are kept in memory.

    :param number: what belongs together has the same.
    :param more: other messages of the same follow.
    """

    part: Part
    number: int
    items: tuple[Mapping[str, Any], ...]
    more: bool


Message: TypeAlias = Hello | Welcome | Refusal | Prepare | Prepared | Offer | Answer | MemoryMessage


class OfferBuilder:
    """Encodes an offer stream by stream, each of them once.

    :param room: the offer has so many bytes at most.
    """

    def __init__(self, batch: int, room: int) -> None:
        self._head = f'{{"type": "offer", "batch": {batch}, "streams": ['.encode()
        self._room = room - len(self._head) - len(b"]}")
        self._records: list[bytes] = []

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: StreamRecord) -> bool:
        """Add a stream. Return False where it does not fit: where there is no other yet, it fits into no offer.

        :raises ValueError: where it has what JSON cannot have.
        """
        try:
            encoded = _dump(record.as_json())
        except TypeError as error:
            raise ValueError(str(error)) from error
        size = len(encoded) + len(b", ")
        if len(self._records) == MAX_STREAMS or size > self._room:
            return False
        self._room -= size
        self._records.append(encoded)
        return True

    def encode(self) -> bytes:
        """Encode the offer."""
        return self._head + b", ".join(self._records) + b"]}"


def encode(message: Hello | Welcome | Refusal | Prepare | Prepared | Answer) -> bytes:
    """Encode a message; for offers there is :class:`OfferBuilder`, for channels :mod:`.moving.memory.packets`."""
    if isinstance(message, Hello):
        terms = None if message.terms is None else message.terms.as_json()
        return _dump({"type": "hello", "version": message.version, "terms": terms})
    if isinstance(message, Welcome):
        return _dump({"type": "welcome"})
    if isinstance(message, Refusal):
        return _dump({"type": "refusal", "reason": message.reason, "detail": message.detail})
    if isinstance(message, Prepare):
        return _dump({"type": "prepare", "batch": message.batch, "channels": list(message.channels)})
    if isinstance(message, Prepared):
        return _dump({"type": "prepared", "batch": message.batch})
    refused = {str(index): reason for index, reason in message.refused.items()}
    return _dump({"type": "answer", "batch": message.batch, "refused": refused})


def decode(packet: bytes) -> Message:
    """Decode a message.

    :raises ValueError: where it is none of this protocol.
    """
    try:
        found = json.loads(packet)
        if not isinstance(found, dict) or (kind := take(found, "type", str)) not in _DECODERS:
            raise ValueError("a message is an object with a type of this protocol")
        return _DECODERS[kind](found)
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"a message is too deep, or a number in it too large: {error}") from error


def _hello(found: Mapping[str, Any]) -> Hello:
    version = take(found, "version", int)
    return Hello(version, Terms.of_json(take(found, "terms", dict)) if version == VERSION else None)


def _prepare(found: Mapping[str, Any]) -> Prepare:
    return Prepare(take(found, "batch", int), texts(found, "channels"))


def _offer(found: Mapping[str, Any]) -> Offer:
    records = take(found, "streams", list)
    if not 1 <= len(records) <= MAX_STREAMS:
        raise ValueError(f"an offer has 1 to {MAX_STREAMS} streams, not {len(records)}")
    return Offer(take(found, "batch", int), tuple(map(StreamRecord.of_json, records)))


def _answer(found: Mapping[str, Any]) -> Answer:
    refused = take(found, "refused", dict)
    return Answer(take(found, "batch", int), {int(index): _reason(refused[index]) for index in refused})


def _memory(found: Mapping[str, Any]) -> MemoryMessage:
    part, items = take(found, "part", str), take(found, "items", list)
    if part not in get_args(Part) or not all(isinstance(item, dict) for item in items):
        raise ValueError("a message about memory has a part of this protocol, and objects as items")
    known: Part = part
    return MemoryMessage(known, take(found, "number", int), tuple(items), take(found, "more", bool))


def _reason(word: Any) -> Reason:
    if word not in get_args(Reason):
        raise ValueError(f"{word!r} is no reason of this protocol")
    reason: Reason = word
    return reason


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Message]] = {
    "hello": _hello,
    "welcome": lambda _: Welcome(),
    "refusal": lambda found: Refusal(_reason(take(found, "reason", str)), take(found, "detail", str)),
    "prepare": _prepare,
    "prepared": lambda found: Prepared(take(found, "batch", int)),
    "offer": _offer,
    "answer": _answer,
    "memory": _memory,
}


_ENCODER = json.JSONEncoder(allow_nan=False)


def _dump(value: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(value).encode()
