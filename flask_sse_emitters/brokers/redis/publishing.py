"""Publishing to Redis: one call of the script for each channel, and what became of each event."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from ...errors import BrokerUnavailable
from ..base import Publication, Published, RunLost
from ..event_log import Bounds
from ..remote.green import require_patched_sockets
from .connections.client import Clients
from .connections.deadline import within
from .errors import KEYS, diagnose, error_text, may_have_run
from .health import PUBLISHING, Health
from .messages import KeyNames, KnownEvent, publish_arguments, read_bounds
from .scripts.channels import PUBLISH
from .subscriber import Subscriber

log = logging.getLogger("flask_sse_emitters.brokers.redis")


class Publishing:
    """Publishes events. Any thread may call, and waits for Redis.

    :param seconds: how long that may take.
    :param subscriber: knows the newest events, and is told of those that are published here.
    """

    def __init__(
        self, clients: Clients, names: KeyNames, seconds: float, health: Health, subscriber: Subscriber
    ) -> None:
        self._clients = clients
        self._names = names
        self._seconds = seconds
        self._health = health
        self._subscriber = subscriber
        self._has_warned = False  # of bounds that differ from those of another process

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events in one round trip, but in a cluster: see :meth:`.Broker.publish_many`."""
        require_patched_sockets("Redis")
        groups: dict[str, list[Publication]] = {}
        for publication in publications:
            groups.setdefault(publication.channel, []).append(publication)
        answers: Sequence[Any]
        try:
            with within(self._seconds):
                answers = self._run([*groups.items()])
        except (redis.RedisError, OSError) as error:
            answers = [error] * len(groups)
        results = [self._read(*group, answer) for group, answer in zip(groups.items(), answers, strict=True)]
        if len(results) == 1:
            return results[0]
        found = {channel: iter(result) for channel, result in zip(groups, results, strict=True)}
        return [next(found[publication.channel]) for publication in publications]

    def _run(self, groups: Sequence[tuple[str, Sequence[Publication]]]) -> Sequence[Any]:
        client = self._clients.get()
        answers = client.run_all(PUBLISH, [self._call(*group, "") for group in groups])
        unclear = [index for index, answer in enumerate(answers) if answer == [b"?"]]
        if unclear:  # another server is the master: see PUBLISH
            durable = "1" if client.is_durable() else "0"
            again = client.run_all(PUBLISH, [self._call(*groups[index], durable) for index in unclear])
            for index, answer in zip(unclear, again, strict=True):
                answers[index] = answer
        return answers

    def _call(self, channel: str, group: Sequence[Publication], durable: str) -> tuple[list[str], list[Any]]:
        keys = self._names.keys(channel, [each.key for each in group if each.key is not None])
        announced, known = self._names.announcements(channel), self._subscriber.known(channel)
        return keys, publish_arguments(group, announced, known, durable)

    def _read(
        self, channel: str, group: Sequence[Publication], answer: Sequence[Any] | Exception
    ) -> list[Published | Exception]:
        """Read what became of some events of one channel."""
        if isinstance(answer, Exception):
            return [self._unavailable(channel, self._names.keys(channel), answer)] * len(group)
        self._health.worked(PUBLISHING)
        self._health.channel_worked(PUBLISHING, channel)
        for event_id, is_new, ms, *_ in reversed(answer):
            if is_new:
                epoch, _, offset = event_id.decode().rpartition("-")
                self._subscriber.note_known(channel, KnownEvent(epoch, int(offset), int(ms), is_sure=True))
                break
        return [self._read_result(each, *result) for each, result in zip(group, answer, strict=True)]

    def _read_result(
        self, publication: Publication, event_id: bytes, is_new: int, _ms: bytes, is_reset: int, other: bytes
    ) -> Published | Exception:
        channel, bounds = publication.channel, publication.bounds
        if not event_id:
            return RunLost(channel)
        if is_reset:
            at = self._names.keys(channel)[1]
            log.warning("%s held something else than this package puts there: it was deleted and begun again", at)
        if other and bounds is not None and (before := read_bounds(other)) is not None:
            self._warn_of_bounds(channel, bounds, before)
        return Published(event_id.decode(), bool(is_new))

    def _warn_of_bounds(self, channel: str, bounds: Bounds, before: Bounds) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "channel %r keeps %d events for %g s from now on, as this process has it, and kept %d for %g s before: "
                "give all processes the same SSE_HISTORY, SSE_HISTORY_SECONDS and history= (this is logged once)",
                channel,
                *bounds,
                *before,
            )

    def _unavailable(self, channel: str, keys: list[str], error: Exception) -> BrokerUnavailable:
        trouble = diagnose(error)
        if trouble is KEYS:
            self._health.channel_failed(PUBLISHING, channel, keys, error)
        else:
            self._health.failed(PUBLISHING, error)
        may_be = may_have_run(error)
        outcome = "it may have been published, so give a key to try again safely" if may_be else "nothing was published"
        advice = self._health.advice(trouble, keys)
        unavailable = BrokerUnavailable(
            f"Redis did not confirm the event ({error_text(error)}): {outcome}; {advice}", may_be_published=may_be
        )
        unavailable.__cause__ = error
        return unavailable
