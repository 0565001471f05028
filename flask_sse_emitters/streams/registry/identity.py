"""The reader of a stream: who it is, and what it reads."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ...wire.event import plain_text

#: An identity has so many characters at most.
LONGEST_IDENTITY = 500


class Reader:
    """Whose stream it is.

    :param identities: of who reads, in the order in which they were named.
    :param channels: that are read.
    :param asked: for these, by the names that the client has for them.
    :param request: what is kept of it; None where the rule cannot be asked again.
    :param by_channel: who reads each channel, in their order, where that is not the same for all; None where it is.
    """

    __slots__ = ("asked", "by_channel", "channels", "identities", "request")

    def __init__(
        self,
        identities: tuple[str, ...],
        channels: tuple[str, ...],
        asked: tuple[str, ...] = (),
        request: bytes | None = None,
        by_channel: tuple[str | None, ...] | None = None,
    ) -> None:
        self.identities = identities
        self.channels = channels
        self.asked = asked
        self.request = request
        self.by_channel = by_channel

    def identity_in(self, channel: str) -> str | None:
        """Return who reads this channel; None where that is unknown."""
        if self.by_channel is not None:
            return dict(zip(self.channels, self.by_channel, strict=True)).get(channel)
        return self.identities[0] if self.identities and channel in self.channels else None


class HasReader(Protocol):
    """A stream, as it is found by its reader."""

    reader: Reader | None


_Stream = TypeVar("_Stream", bound=HasReader)


class OwnedStreams(Generic[_Stream]):
    """Streams by the identities of their readers. Not thread-safe."""

    def __init__(self) -> None:
        self._by_identity: dict[str, dict[_Stream, None]] = {}

    def __len__(self) -> int:
        """Return how many identities have streams."""
        return len(self._by_identity)

    def add(self, stream: _Stream) -> None:
        """Add a stream, where its reader is known. Idempotent."""
        for identity in () if stream.reader is None else stream.reader.identities:
            self._by_identity.setdefault(identity, {})[stream] = None

    def remove(self, stream: _Stream) -> None:
        """Remove a stream. Idempotent."""
        for identity in () if stream.reader is None else stream.reader.identities:
            owned = self._by_identity.get(identity)
            if owned is not None:
                owned.pop(stream, None)
                if not owned:
                    del self._by_identity[identity]

    def of(self, identity: str) -> list[_Stream]:
        """Return the streams of one identity."""
        return list(self._by_identity.get(identity, ()))


def check_identity(identity: object) -> str:
    """Return the identity itself, as a plain str, so that a revocation finds it by what it equals.

    :raises TypeError: where it is no str.
    :raises ValueError: where it is none that can be used.
    """
    if not isinstance(identity, str):
        raise TypeError(
            f"an identity is a str, not {identity!r}: str() makes one of a number, and None may mean that nobody is "
            "logged in"
        )
    text = plain_text(identity)
    if not 1 <= len(text) <= LONGEST_IDENTITY:
        raise ValueError(f"an identity has 1 to {LONGEST_IDENTITY} characters, not {len(text)}")
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError(f"an identity holds no lone surrogates, unlike {text!r}")
    return text
