"""What a process asks of the database for its app: to publish, and how far channels are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import psycopg

from ...errors import BrokerUnavailable
from ..base import ChannelState, Publication, Published, by_channel
from ..event_log import Bounds
from ..listening.lookup import KnownEvent
from ..remote.deadline import within
from ..remote.green import require_patched_sockets
from ..remote.health import PUBLISHING, Health
from .client.database import Database
from .client.errors import diagnose, error_text, may_have_run
from .statements import (
    CANCEL_RUN,
    PUBLISH,
    START_RUN,
    STATE,
    TELL_MEMBERS,
    Outcome,
    bounds_parameters,
    is_to_be_mended,
    known_parameters,
    milliseconds,
    publish_parameters,
    read_outcome,
    read_state,
)

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")

_T = TypeVar("_T")


class KnownEvents(Protocol):
    """The newest events that this process knows of."""

    def known(self, channel: str) -> KnownEvent:
        """Return that of a channel."""

    def note_known(self, channel: str, known: KnownEvent) -> None:
        """Remember it."""


class Requests:
    """Asks the database. Any thread may call, and waits, but no longer than so many seconds.

    :param url: the address of the database, as it may be shown.
    """

    def __init__(self, database: Database, health: Health, newest: KnownEvents, url: str, seconds: float) -> None:
        self._database = database
        self._health = health
        self._newest = newest
        self._url = url
        self._seconds = seconds
        self._has_warned = False  # of bounds that differ from those of another process

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events: see :meth:`.Broker.publish_many`."""
        indexes = dict(sorted(by_channel(publications).items()))
        groups = {channel: [publications[index] for index in found] for channel, found in indexes.items()}
        require_patched_sockets("PostgreSQL")
        try:
            with within(self._seconds):
                outcome = self._publish(groups)
        except (psycopg.Error, OSError) as error:
            return [self._publish_error(error)] * len(publications)
        self._health.worked(PUBLISHING)
        if outcome.other_bounds and not self._has_warned:
            self._warn_of_bounds(groups, outcome.other_bounds)
        places = (index for found in indexes.values() for index in found)
        results = dict(zip(places, outcome.results, strict=True))
        return [results[index] for index in range(len(publications))]

    def drain(self, channels: Iterable[str]) -> None:
        """Publish what waits for these channels in the outbox: see :meth:`.PostgresqlBroker.drain`."""
        groups: dict[str, Sequence[Publication]] = {channel: [] for channel in sorted(set(channels))}
        self._do("publish what was committed", lambda: self._publish(groups))

    def state(self, channel: str) -> ChannelState:
        """Return the state of a channel: see :meth:`.Broker.state`."""
        wanted = "say how far the channel is"
        while True:
            for row in self.ask(wanted, STATE, [channel]):
                state, lookup = read_state(row)
                if not is_to_be_mended(lookup, self._newest.known(channel)):
                    return state
            self._do(wanted, lambda: self._publish({channel: []}))

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run: see :meth:`.Broker.start_run`."""
        known = known_parameters(self._newest.known(channel))
        parameters = [channel, *known, run, milliseconds(seconds)]
        return self._change("start the run", channel, START_RUN, parameters)

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, and end it: see :meth:`.Broker.cancel_run`."""
        known = known_parameters(self._newest.known(channel))
        return self._change("cancel the run", channel, CANCEL_RUN, [channel, *known, *bounds_parameters(bounds)])

    def tell_members(self, channel: str, holder: str, told: Sequence[Any]) -> bool:
        """Note who has come, and who is gone. Return whether there may be more of it: see :class:`.BaseMembers`."""

        def tell() -> bool:
            known = known_parameters(self._newest.known(channel))
            [(has_more, event_id)] = self._database.run(TELL_MEMBERS, [holder, channel, *known, *told])
            self._database.tell({} if event_id is None else {channel: event_id})
            return bool(has_more)

        return self._do("note the members", tell)

    def ask(self, wanted: str, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run a statement that publishes nothing of its caller's, and return the rows.

        :param wanted: what the database should do, for the error.
        :raises BrokerUnavailable: where it does not.
        """
        return self._do(wanted, lambda: self._database.run(statement, parameters))

    def _do(self, wanted: str, call: Callable[[], _T]) -> _T:
        require_patched_sockets("PostgreSQL")
        try:
            with within(self._seconds):
                return call()
        except (psycopg.Error, OSError) as error:
            advice = self._health.advice(diagnose(error))
            raise BrokerUnavailable(f"PostgreSQL did not {wanted} ({error_text(error)}): {advice}") from error

    def _change(self, wanted: str, channel: str, statement: str, parameters: Sequence[Any]) -> bool:
        def change() -> bool:
            [(is_done,)] = self._database.run(statement, parameters)
            self._database.tell({channel: ""} if is_done else {})
            return bool(is_done)

        return self._do(wanted, change)

    def _publish(self, groups: Mapping[str, Sequence[Publication]]) -> Outcome:
        known = {channel: self._newest.known(channel) for channel in groups}
        rows = self._database.run(PUBLISH, publish_parameters(groups, known)) if groups else []
        outcome = read_outcome(rows, groups)
        for channel, newest in outcome.known.items():
            self._newest.note_known(channel, newest)
        self._database.tell(outcome.positions)
        return outcome

    def _publish_error(self, error: Exception) -> BrokerUnavailable:
        self._health.failed(PUBLISHING, error)
        may_be = may_have_run(error)
        outcome = "it may have been published, so give a key to try again safely" if may_be else "nothing was published"
        advice = self._health.advice(diagnose(error))
        unavailable = BrokerUnavailable(
            f"PostgreSQL did not confirm the event ({error_text(error)}): {outcome}; {advice}", may_be_published=may_be
        )
        unavailable.__cause__ = error
        return unavailable

    def _warn_of_bounds(self, groups: Mapping[str, Sequence[Publication]], before: Mapping[str, Bounds]) -> None:
        self._has_warned = True
        channel, other = next(iter(before.items()))
        bounds = [each.bounds for each in groups[channel] if each.bounds is not None]
        log.warning(
            "channel %r keeps %d events for %g s from now on, as this process has it, and kept %d for %g s before: "
            "give all processes the same SSE_HISTORY, SSE_HISTORY_SECONDS and history= (this is logged once)",
            channel,
            *bounds[-1],
            *other,
        )
