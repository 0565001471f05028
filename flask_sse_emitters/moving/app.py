"""What the move of streams has to know of an app."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..brokers.memory import MemoryBroker
from ..channels.registry import Channels
from ..config.settings import Settings
from ..streams.registry.open_streams import StreamRegistry
from ..streams.stream import Stream
from .protocol.messages import Refusal
from .protocol.terms import Terms


@dataclass(frozen=True, eq=False)
class MovingApp:
    """An app of this process.

    :param name: its import name.
    :param version: of this package.
    :param recheck: asks the app's rule again about streams, and ends those that it denies. May block.
    :param begin: is called before the first stream.
    """

    name: str
    version: str
    settings: Settings
    streams: StreamRegistry
    channels: Channels
    recheck: Callable[[Sequence[Stream]], None]
    begin: Callable[[], None]

    def terms(self) -> Terms:
        """Return what must be equal in the other process."""
        return Terms.of(self.name, self.version, self.settings)

    @property
    def moves(self) -> bool:
        """Whether its streams move at all: ``SSE_MOVE``, and its channels are in another process afterwards."""
        return self.settings.move == "auto" and (self.channels.broker.is_shared or self.memory is not None)

    @property
    def memory(self) -> MemoryBroker | None:
        """Its broker, where that keeps channels in this process, so that they go along; else None."""
        broker = self.channels.broker
        return broker if isinstance(broker, MemoryBroker) else None

    @property
    def has_something(self) -> bool:
        """Whether there is anything to give away."""
        return len(self.streams) > 0 or (self.memory is not None and self.memory.has_channels)


#: The apps of the process.
APPS: weakref.WeakSet[MovingApp] = weakref.WeakSet()


def find_app(theirs: Terms) -> MovingApp | Refusal:
    """Return the app that streams of another process may go on in; or why there is none."""
    apps = [app for app in APPS if app.name == theirs.app and app.moves]
    if len(apps) != 1:
        return Refusal("app", f"there are {len(apps)} apps named {theirs.app!r} that take streams")
    [app] = apps
    if app.streams.moves.is_leaving or app.streams.is_draining:
        return Refusal("stopping", "this worker stops itself")
    difference = app.terms().difference(theirs)
    return app if difference is None else Refusal(*difference)
