"""What is kept of one channel, as it goes from one record to another, also in another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..event_log import Bounds, LogState


class ChannelFrozen(Exception):
    """Nothing is published here any more: another process has the channel, or another record."""


class Lease(NamedTuple):
    """The run that has a channel."""

    name: str
    seconds: float  #: that each event lets it have the channel for
    until: float  #: it has the channel


class RecordState(NamedTuple):
    """All that is kept of one channel, at one moment. Times are of the scheduler's clock."""

    name: str
    log: LogState
    bounds: Bounds
    keys: Mapping[str, tuple[float, str]]  #: with their time and the id of their event, by age
    run: Lease | None
    published_at: float
    used_at: float

    @property
    def is_blank(self) -> bool:
        """Whether nothing has ever been published to it, and nothing publishes."""
        return not self.log.newest and self.run is None
