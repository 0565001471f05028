"""What is kept of one channel, as it goes from one process to another.

Two states of one channel become one where the process that begins has published something before it gets what the
other one had. That came first: so the log of that goes on, in its epochs, with what was published here after it.
Clients of both come back with their ids: those that were given here are known by an alias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ...wire.frame import without_id
from ..event_log import Alias, Bounds, Log, LogState


class ChannelFrozen(Exception):
    """Nothing is published here any more: another process has the channel."""


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
    members: Sequence[str] = ()
    member_seconds: float = 0.0  #: for which a process has its members count

    @property
    def is_blank(self) -> bool:
        """Whether nothing has ever been published to it, nothing publishes, and nobody is there."""
        return not self.log.newest and self.run is None and not self.members


def merge(before: RecordState, after: RecordState, clock: Callable[[], float]) -> RecordState:
    """Return what is kept of a channel of which there was one record before, and another after that.

    Of two runs the first has the channel. A key stands for the first event that was published with it.
    """
    keys = {**after.keys, **before.keys}
    has_run = after.run is not None
    return RecordState(
        name=before.name,
        log=_merge_logs(before.log, after.log, clock, begins_anew=has_run),
        bounds=after.bounds if after.log.newest else before.bounds,
        keys=dict(sorted(keys.items(), key=lambda item: item[1][0])),
        run=before.run or after.run,
        published_at=max(before.published_at, after.published_at),
        used_at=max(before.used_at, after.used_at),
        members=before.members,  # those after it are known where they were told
        member_seconds=before.member_seconds,
    )


def _merge_logs(before: LogState, after: LogState, clock: Callable[[], float], *, begins_anew: bool) -> LogState:
    log, shift = Log.restore(before, clock), before.newest
    lacking = (after.frames[0].offset if after.frames else after.newest + 1) - 1
    if begins_anew or lacking:
        log.begin_anew()
    if lacking:  # they are not kept any more, and so nothing before them
        log = Log.restore(log.snapshot()._replace(newest=shift + lacking, last=after.last, frames=[]), clock)
    for frame in after.frames:
        log.begin_anew()
        log.keep(without_id(frame), after.bounds, frame.at)
    ended = [Alias(each.epoch, shift, each.offset) for each in after.former]
    shifted = [alias._replace(shift=shift + alias.shift) for alias in after.aliases]
    aliases = (*before.aliases, Alias(after.epoch, shift, after.newest), *ended, *shifted)
    return log.snapshot()._replace(aliases=aliases)
