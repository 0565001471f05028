"""What must be equal in two processes, so that streams of one go on in the other as they were."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ...config.settings import Settings
from .stream_record import take

Difference: TypeAlias = Literal["app", "package", "broker", "settings"]

#: These make the broker: they stand in its digest.
_OF_BROKER = ("broker_url", "broker_prefix")


@dataclass(frozen=True)
class Terms:
    """What two processes compare before a stream moves.

    :param app: its import name.
    :param package: the version of this package.
    :param broker: a digest of where channels are kept. Its URL may have a password, which is to stand in no message.
    :param settings: what the config sets besides.
    """

    app: str
    package: str
    broker: str
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, app: str, package: str, settings: Settings) -> Terms:
        """Make the terms of an app."""
        values = settings.config_values()
        broker = json.dumps([values.pop(name) for name in _OF_BROKER])
        as_json = json.loads(json.dumps(values))  # which has no tuples
        return cls(app, package, hashlib.sha256(broker.encode()).hexdigest()[:16], as_json)

    def as_json(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {"app": self.app, "package": self.package, "broker": self.broker, "settings": dict(self.settings)}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Terms:
        """Read them from JSON.

        :raises ValueError: where they are none.
        """
        app, package, broker = (take(found, name, str) for name in ("app", "package", "broker"))
        return cls(app, package, broker, take(found, "settings", dict))

    def difference(self, theirs: Terms) -> tuple[Difference, str] | None:
        """Return what differs, the first thing of it alone, and the same for people; None where all is equal."""
        words: tuple[Difference, ...] = ("app", "package")
        for word in words:
            there, here = getattr(theirs, word), getattr(self, word)
            if there != here:
                return word, f"{word} is {there!r} there, and {here!r} here"
        if theirs.broker != self.broker:
            return "broker", "SSE_BROKER_URL or SSE_BROKER_PREFIX is another there"
        for name in sorted({*theirs.settings, *self.settings}):
            there, here = theirs.settings.get(name), self.settings.get(name)
            if there != here:
                return "settings", f"SSE_{name.upper()} is {there!r} there, and {here!r} here"
        return None
