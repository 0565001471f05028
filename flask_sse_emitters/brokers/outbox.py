"""The outbox of a broker that lives in a database: events that are published exactly if a transaction commits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from .base import Publication


class Outbox(Protocol):
    """A table into which transactions insert events. Any thread may call."""

    #: The schema of the table, which is named ``outbox``.
    schema: str

    def is_locked(self, number: int) -> bool:
        """Return whether some transaction in this database has the advisory lock of this number.

        May wait for the broker, within limits. The table is there afterwards.

        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """

    def row(self, publication: Publication) -> dict[str, Any]:
        """Return the row that stands for an event, by column."""

    def drain(self, channels: Iterable[str]) -> None:
        """Publish what transactions have committed for these channels. May wait for the broker, within limits.

        :raises BrokerUnavailable: where that fails. It is published all the same, but later.
        """

    def drain_soon(self, channels: Iterable[str]) -> None:
        """Publish that in the background. Never waits."""


@runtime_checkable
class HasOutbox(Protocol):
    """A broker with an outbox."""

    outbox: Outbox


def outbox_of(broker: object) -> Outbox | None:
    """Return the outbox of a broker, if it has one."""
    return broker.outbox if isinstance(broker, HasOutbox) else None
