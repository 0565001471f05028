"""A client that comes to channels: whether anything is left for it there, and where it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...brokers.base import ChannelState
from ...brokers.event_ids import Position, read_ids
from ...wire.frame import END
from ..process_subscription import ProcessSubscription
from .locating import Arrival
from .since import FIRST, NOW, parse_since


def arrive(
    requested: str | None, subscriptions: Sequence[ProcessSubscription], since: Sequence[str | None]
) -> Sequence[Arrival] | None:
    """Return how a client comes to channels; None where there is nothing for it, and nothing will come.

    It is so once all channels are complete, and it has their ends, or nothing is kept of what it lacks. May wait for
    the broker, within limits; where that cannot be reached, it is not known.

    :param requested: what the client has received last; None where that is nothing.
    :param since: where it begins in each channel if it has no id; None is at the first event in a run, and else with
        what comes. Of a channel that is complete it gets all that is kept.
    :return: empty where it begins after what it has received last.
    """
    if requested is not None and requested != END:
        positions: Sequence[Position | None] = read_ids(requested, len(subscriptions)) or [None] * len(subscriptions)
        known = zip(_states(subscriptions), positions, strict=True)
        return None if all(_is_done(state, position) for state, position in known) else ()
    is_back = requested == END
    states = list(_states(subscriptions, was_complete=is_back))
    if all(_is_done(state, is_back=is_back) for state in states):
        return None
    return [_arrival(state, is_back, text) for state, text in zip(states, since, strict=True)]


def _arrival(state: ChannelState | None, is_back: bool, since: str | None) -> Arrival:
    begins = NOW if since is None else parse_since(since)
    if state is None:
        return Arrival(begins, is_default=since is None)
    if state.is_complete:
        begins = NOW if is_back else FIRST
    elif since is None and state.has_run:
        begins = FIRST
    has_end = state.is_complete or state.has_run
    return Arrival(begins, Position(state.epoch, state.newest), state.oldest, has_end, since is None)


def _is_done(state: ChannelState | None, position: Position | None = None, *, is_back: bool = False) -> bool:
    """Return whether there is nothing for a client in a channel, and nothing will come.

    :param position: what it received last; None where that is nothing.
    :param is_back: it was told that all was over; so it was where the channel is not known any more.
    """
    if state is None:
        return False
    if not state.is_complete:
        return is_back and not state.newest
    has_last = (
        position is not None and position.epoch == state.epoch and state.newest - 1 <= position.offset <= state.newest
    )
    return is_back or has_last or not state.has_events


def _states(
    subscriptions: Sequence[ProcessSubscription], *, was_complete: bool = False
) -> Iterator[ChannelState | None]:
    """Yield the state of each channel; None from the first on that cannot be known."""
    is_known = True
    for subscription in subscriptions:
        state = subscription.find_state(was_complete=was_complete) if is_known else None
        is_known = state is not None
        yield state
