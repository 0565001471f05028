"""Publish from processes that have no app: scripts, workers, other services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from .brokers import Broker, Publication, Published, broker_of
from .brokers.event_log import Bounds
from .channels.names import check_key, check_name, private_name
from .channels.publishing import (
    PublishCounts,
    encode_for_channel,
    id_of_first,
    ids_of_all,
    publications_of,
    publish_on,
    with_end,
)
from .commits.methods import CommitMethods
from .config.settings import DEFAULTS, Settings, checked
from .types import Duration
from .wire.event import plain_text


class Publisher(CommitMethods):
    """Publishes to the channels of an app, from any process that reaches its broker.

    ::

        publisher = Publisher("redis://localhost:6379/0")
        publisher.publish("orders", {"id": 7}, event="created")

    It connects with the first event, and starts no thread. Any thread may call any method, also in a forked child,
    which gets its own connections.

    :param url: as the app's ``SSE_BROKER_URL``.
    :param prefix: as its ``SSE_BROKER_PREFIX``.
    :param publish_seconds: how long :meth:`publish` may wait, in seconds or a timedelta, more than 0.
    :raises ValueError: names the parameter, and what to change; also where the broker serves a single process, as
        ``memory://`` does.
    :raises ImportError: where the broker needs a package that is not installed; names it.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = DEFAULTS.broker_prefix,
        publish_seconds: Duration = DEFAULTS.publish_seconds,
    ) -> None:
        settings = Settings(
            broker_url=_checked_url(url),
            broker_prefix=checked("broker_prefix", prefix, "prefix"),
            publish_seconds=checked("publish_seconds", publish_seconds),
        )
        try:
            broker = broker_of(settings)
        except ValueError as error:
            raise ValueError(f"url: {error}") from error
        if not broker.is_shared:
            scheme = url.partition("://")[0]
            raise ValueError(
                f"url: what is published to {scheme}:// reaches this process alone, and it has no clients: give the "
                "SSE_BROKER_URL of the app, which must be one that all its processes share, such as "
                "redis://localhost:6379/0"
            )
        self._channels = _Channels(broker, settings)

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        last: bool = False,
    ) -> str:
        """Publish an event to all clients of a channel, as :meth:`.SSE.publish` does. May wait for the broker.

        The channel's history keeps as much as its app set last, or the default where it has set nothing yet.

        :param data: a str is sent as it is, anything else as ``json.dumps`` encodes it; or an :class:`Event` without an
            id.
        :param event: its name; None is ``"message"``. Not ``"gap"`` or ``"~end"``, which tell clients something else.
        :param retry: milliseconds that clients wait before they reconnect, from now on.
        :param key: makes a retry safe: a second event with the same key within 5 minutes is not published.
        :param last: ends the channel after it, in one step: see :meth:`.Channel.complete`.
        :return: the event's id, ``<epoch>-<offset>``; where the key was used before, the id of that event.
        :raises InvalidChannel: where this is no channel name.
        :raises InvalidEvent: where the event cannot be written, is named ``gap`` or ``~end``, or has more than 1 MiB.
        :raises BrokerUnavailable: where the broker cannot be reached in time, or refuses; says whether the event may
            have been published.
        :raises RuntimeError: after :meth:`close`.
        """
        return self._publish(check_name(channel), data, event, retry, key, last)

    def publish_many(self, events: Iterable[tuple[str, Any]]) -> list[str]:
        """Publish several events in one step, as :meth:`.SSE.publish_many` does. May wait for the broker.

        :param events: for each the channel, and an :class:`Event` without an id, a builder's, or plain data.
        :return: the ids, in the order given.
        :raises PublishFailed: where some were not published, or may not have been: has the result of each.
        """
        self._channels.check_open()
        publications = publications_of(events, self._channels.settings, self._channels.bounds)
        return ids_of_all(self._channels.send(publications))

    def publish_to(
        self,
        identity: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        last: bool = False,
    ) -> str:
        """Publish an event to one reader alone, as :meth:`.SSE.publish_to` does. May wait for the broker.

        :raises TypeError: where the identity is no str.
        :raises ValueError: where it is not valid; other errors are those of :meth:`publish`.
        """
        return self._publish(private_name(identity), data, event, retry, key, last)

    def _publish(
        self, channel: str, data: Any, event: str | None, retry: int | None, key: str | None, last: bool
    ) -> str:
        self._channels.check_open()
        frame = encode_for_channel(data, event, retry, self._channels.settings)
        publication = Publication(channel, frame, None, check_key(key))
        return id_of_first(self._channels.send(with_end(publication) if last else [publication]))

    def _destination(self) -> _Channels:
        return self._channels

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._channels.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Channels:
    """The channels of a broker, as a publisher has them."""

    has_background = False  #: see :class:`.Destination`

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self.broker = broker
        self.settings = settings
        self.publish_counts = PublishCounts()  # nobody reads them
        self._is_closed = False

    def bounds(self, _name: str) -> Bounds | None:
        """Return how much is kept of a channel: as much as before."""
        return None

    def send(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish all in one step."""
        self.check_open()
        return publish_on(self.broker, publications)

    def check_open(self) -> None:
        """Check that :meth:`close` has not been called.

        :raises RuntimeError: where it has.
        """
        if self._is_closed:
            raise RuntimeError("this Publisher is closed: publish before that, or make another one")

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._is_closed = True
        self.broker.close()


def _checked_url(url: object) -> str:
    if isinstance(url, str) and "://" in url:
        return plain_text(url)
    shown = url.rpartition("@")[2] if isinstance(url, str) else url  # without a password
    raise ValueError(f"url must be a URL such as redis://localhost:6379/0, not {shown!r}")
