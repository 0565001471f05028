"""Publishing from processes that have no app: scripts, workers, other services."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from .brokers import broker_of
from .channels.channel import check_key, check_name, frame_to_publish, private_name
from .config.settings import DEFAULTS, Duration, Settings, checked
from .wire.event import plain_text


class Publisher:
    """Publishes to the channels of an app, from any process that reaches its broker.

    ::

        publisher = Publisher("redis://localhost:6379/0")
        publisher.publish("orders", {"id": 7}, event="created")

    It connects with the first event, and starts no thread. Every method may be called from any thread, and in a forked
    child, which gets connections of its own.

    :param url: as the app's ``SSE_BROKER_URL``.
    :param prefix: as its ``SSE_BROKER_PREFIX``.
    :param publish_seconds: how long :meth:`publish` may wait, in seconds or a timedelta, more than 0.
    :raises ValueError: names the parameter, and what to change; also where the broker is one of a single process, such
        as ``memory://``.
    :raises ImportError: where what the broker needs is not installed; says what to install.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = DEFAULTS.broker_prefix,
        publish_seconds: Duration = DEFAULTS.publish_seconds,
    ) -> None:
        self._settings = Settings(
            broker_url=_checked_url(url),
            broker_prefix=checked("broker_prefix", prefix, "prefix"),
            publish_seconds=checked("publish_seconds", publish_seconds),
        )
        try:
            self._broker = broker_of(self._settings)
        except ValueError as error:
            raise ValueError(f"url: {error}") from error
        if not self._broker.is_shared:
            scheme = url.partition("://")[0]
            raise ValueError(
                f"url: what is published to {scheme}:// reaches this process alone, and it has no clients: give the "
                "SSE_BROKER_URL of the app, which must be one that all its processes share, such as "
                "redis://localhost:6379/0"
            )
        self._is_closed = False

    def publish(
        self, channel: str, data: Any, *, event: str | None = None, retry: int | None = None, key: str | None = None
    ) -> str:
        """Publish an event to all clients of a channel, as :meth:`.SSE.publish` does.

        As much is kept of the channel as its app said last, or as is the default where it has said nothing yet.

        :param data: a str goes as it is, anything else as ``json.dumps`` has it; or an :class:`Event` without an id.
        :param event: its name; None is ``"message"``. Not ``"gap"``, which tells clients that they have missed events.
        :param retry: milliseconds until clients reconnect from now on.
        :param key: makes a retry safe: a second event with the same one within 5 minutes is not published.
        :return: the event's id, ``<epoch>-<offset>``; with a key that was there before, that of the first one.
        :raises InvalidChannel: where this is no name of a channel.
        :raises InvalidEvent: where the event cannot be written, is named ``gap``, or has more than 1 MiB.
        :raises BrokerUnavailable: where the broker cannot be reached in time, or refuses; says whether the event may
            have been published.
        :raises RuntimeError: after :meth:`close`.
        """
        return self._publish(check_name(channel), data, event, retry, key)

    def publish_to(
        self, identity: str, data: Any, *, event: str | None = None, retry: int | None = None, key: str | None = None
    ) -> str:
        """Publish an event to one reader alone, as :meth:`.SSE.publish_to` does.

        :raises TypeError: where the identity is no str.
        :raises ValueError: where it is none that can be used; else as for :meth:`publish`.
        """
        return self._publish(private_name(identity), data, event, retry, key)

    def _publish(self, channel: str, data: Any, event: str | None, retry: int | None, key: str | None) -> str:
        if self._is_closed:
            raise RuntimeError("this Publisher is closed: publish before that, or make another one")
        key = check_key(key)
        frame = frame_to_publish(data, event, retry, self._settings)
        return self._broker.publish(channel, frame, None, key).id

    def close(self) -> None:
        """Let go of the connections. Again is nothing."""
        self._is_closed = True
        self._broker.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _checked_url(url: object) -> str:
    if isinstance(url, str) and "://" in url:
        return plain_text(url)
    shown = url.rpartition("@")[2] if isinstance(url, str) else url  # without a password
    raise ValueError(f"url must be a URL such as redis://localhost:6379/0, not {shown!r}")
