"""``redis://`` and its kin: channels that every process shares, kept in Redis or Valkey.

One script gives an event its offset, keeps it and announces it (:mod:`.scripts`). Each process subscribes to the
channels that have a client there (:mod:`.subscriber`). Where Redis cannot be reached, streams stay open, publishing is
an error, and the events that others published meanwhile arrive when it is back.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from ...errors import BrokerUnavailable, UnsupportedWorker
from ...runtime.calls import weakly
from ...runtime.fork import reset_after_fork
from ...runtime.gevent_loop import is_green
from ...wire.frame import Frame
from ..base import Broker, ChannelState, Listener, Publication, Published, RunLost, Start, by_channel
from ..event_ids import Position, new_epoch, read_ids
from ..event_log import Bounds
from .client import Clients
from .connections import within
from .errors import KEYS, diagnose, error_text, may_have_run
from .health import PUBLISHING, Health
from .messages import (
    KeyNames,
    KnownEvent,
    bounds_arguments,
    milliseconds,
    publish_arguments,
    read_arguments,
    read_bounds,
    read_process,
    read_state,
)
from .scripts import Script
from .scripts.channels import CANCEL_RUN, PUBLISH, RENEW_RUN, START_RUN, STATE
from .scripts.processes import PROCESSES, SUM, TRY_WRITE
from .subscriber import Subscriber
from .subscriber.thread import CLUSTER_LOOKUP_SECONDS, LOOKUP_SECONDS
from .url import Address

log = logging.getLogger("flask_sse_emitters.brokers.redis")

#: The position that stands for an id that cannot be read.
UNKNOWN_POSITION = Position("", 0)


class RedisBroker(Broker):
    """Keeps channels in Redis.

    :param url: see :class:`.Address`.
    :param prefix: of all keys and announcements.
    :param publish_seconds: how long :meth:`publish` may take, but for the lookup of a host's name.
    """

    def __init__(self, url: str, *, prefix: str = "sse", publish_seconds: float = 2.0) -> None:
        try:
            self._address = Address(url)
        except ValueError as error:
            raise ValueError(f"{error}: give a URL such as redis://localhost:6379/0") from error
        self._names = KeyNames(prefix, self._address.db)
        self._seconds = publish_seconds
        self._reset()
        reset_after_fork(self._reset)

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        """Publish an event: see :meth:`.Broker.publish`."""
        [published] = self.publish_many([Publication(channel, frame, bounds, key)])
        if isinstance(published, Exception):
            raise published
        return published

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events in one round trip, but in a cluster: see :meth:`.Broker.publish_many`."""
        _require_patched_sockets()
        groups = {
            channel: [publications[index] for index in indexes] for channel, indexes in by_channel(publications).items()
        }
        answers: Sequence[Any]
        try:
            with within(self._seconds):
                answers = self._run_publish(groups)
        except (redis.RedisError, OSError) as error:
            answers = [error] * len(groups)
        found = {
            channel: iter(self._read_published(channel, group, answer))
            for (channel, group), answer in zip(groups.items(), answers, strict=True)
        }
        return [next(found[publication.channel]) for publication in publications]

    def state(self, channel: str) -> ChannelState:
        """Return the state of a channel: see :meth:`.Broker.state`."""
        wanted = "say how far the channel is"
        answer = self._ask_of(channel, STATE, [], wanted)
        try:
            return read_state(answer)
        except ValueError as error:
            raise self._refusal(wanted, self._names.keys(channel), error) from error

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run: see :meth:`.Broker.start_run`."""
        return bool(self._ask_of(channel, START_RUN, [run, milliseconds(seconds)], "start the run"))

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        """Let the run have the channel for longer: see :meth:`.Broker.renew_run`."""
        keys = self._names.keys(channel)
        return bool(self._ask(RENEW_RUN, [run, milliseconds(seconds)], "renew the run", keys))

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, and end it: see :meth:`.Broker.cancel_run`."""
        return bool(self._ask_of(channel, CANCEL_RUN, bounds_arguments(bounds), "cancel the run"))

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        """Deliver the channel's events to the listener: see :meth:`.Broker.subscribe`."""
        _require_patched_sockets()
        self._subscriber.add(channel, listener)
        return None

    def subscribe_first(self, channel: str, listener: Listener) -> Start | None:
        """Subscribe, and catch up with this channel before any other."""
        _require_patched_sockets()
        self._subscriber.add(channel, listener, is_first=True)
        return None

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener: see :meth:`.Broker.unsubscribe`."""
        self._subscriber.remove(channel, listener)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all is delivered: see :meth:`.Broker.look_again`."""
        self._subscriber.sync(channel, done)

    def count_again(self, channel: str) -> None:
        """Report the number of the channel's clients to Redis, which has changed."""
        self._subscriber.count_again(channel)

    def clients_elsewhere(self, channel: str) -> int:
        """Return how many clients of the channel other processes have: see :meth:`.Broker.clients_elsewhere`."""
        arguments = [self.process, self._names.process, channel]
        return int(self._ask(SUM, arguments, "count the clients"))

    def processes(self) -> list[dict[str, Any]]:
        """Return what other processes report: see :meth:`.Broker.processes`."""
        arguments = [self.process, self._names.process]
        return [read_process(*each) for each in self._ask(PROCESSES, arguments, "say what processes there are")]

    def check_writable(self) -> None:
        """Check that an event could be published now: see :meth:`.Broker.check_writable`."""
        self._ask(TRY_WRITE, [], "take a write", [self._names.probe])

    def status(self) -> dict[str, Any]:
        """Return the state of Redis for this process: see :meth:`.Broker.status`."""
        return self._health.status()

    def close(self) -> None:
        """End the subscriber, and close all connections that this thread can close. Idempotent; may wait a second."""
        self._subscriber.close()
        self._subscriber.await_end()
        self._clients.close()

    def _reset(self) -> None:
        if (before := getattr(self, "_subscriber", None)) is not None:
            before.abandon()
        self._has_warned = False  # of bounds that differ from those of another process
        self.process = new_epoch() + new_epoch()
        # The subscriber's thread keeps none of these alive, nor this broker: once it is dropped, that thread ends.
        self._health = Health(self._address.shown, weakly(self._state_changed))
        self._clients = Clients(self._address)
        self._subscriber = Subscriber(
            self._clients.get,
            self._names,
            self.process,
            self._health,
            weakly(self._report),
            CLUSTER_LOOKUP_SECONDS if self._address.kind == "cluster" else LOOKUP_SECONDS,
        )
        weakref.finalize(self, self._subscriber.close).atexit = False  # at exit streams end first

    def _state_changed(self) -> None:
        self.changed()

    def _report(self) -> Mapping[str, Any] | None:
        return self.about()

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

    def _run_publish(self, groups: Mapping[str, Sequence[Publication]]) -> Sequence[Any]:
        client = self._clients.get()

        def run(channels: Sequence[str], durable: str) -> list[Any]:
            return client.run_all(PUBLISH, [self._publish_call(name, groups[name], durable) for name in channels])

        answers = dict(zip(groups, run([*groups], ""), strict=True))
        unclear = [channel for channel, answer in answers.items() if answer == [b"?"]]
        if unclear:  # another server is the master: see PUBLISH
            durable = "1" if client.is_durable() else "0"
            answers.update(zip(unclear, run(unclear, durable), strict=True))
        return [*answers.values()]

    def _publish_call(self, channel: str, group: Sequence[Publication], durable: str) -> tuple[list[str], list[Any]]:
        keys = self._names.keys(channel, [each.key for each in group if each.key is not None])
        announced, known = self._names.announcements(channel), self._subscriber.known(channel)
        return keys, publish_arguments(group, announced, known, durable)

    def _read_published(
        self, channel: str, group: Sequence[Publication], answer: Sequence[Any] | Exception
    ) -> list[Published | Exception]:
        """Read what became of some events of one channel."""
        if isinstance(answer, Exception):
            return [self._publish_error(channel, self._names.keys(channel), answer)] * len(group)
        self._health.worked(PUBLISHING)
        self._health.channel_worked(PUBLISHING, channel)
        return [self._read_result(each, *result) for each, result in zip(group, answer, strict=True)]

    def _read_result(
        self, publication: Publication, event_id: bytes, is_new: int, ms: bytes, is_reset: int, other: bytes
    ) -> Published | Exception:
        channel, bounds = publication.channel, publication.bounds
        if not event_id:
            return RunLost(channel)
        if is_reset:
            at = self._names.keys(channel)[1]
            log.warning("%s held something else than this package puts there: it was deleted and begun again", at)
        if bounds is not None and (before := read_bounds(other)) is not None:
            self._warn_of_bounds(channel, bounds, before)
        published = Published(event_id.decode(), bool(is_new))
        if published.is_new:
            [position] = read_ids(published.id, 1) or [UNKNOWN_POSITION]
            self._subscriber.note_known(channel, KnownEvent(*position, int(ms), is_sure=True))
        return published

    def _publish_error(self, channel: str, keys: list[str], error: Exception) -> BrokerUnavailable:
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

    def _ask_of(self, channel: str, script: Script, arguments: list[Any], wanted: str) -> Any:
        """Run a script that reads a channel: see :meth:`_ask`."""
        first = read_arguments(self._names.announcements(channel), self._subscriber.known(channel))
        return self._ask(script, [*first, *arguments], wanted, self._names.keys(channel))

    def _ask(self, script: Script, arguments: list[Any], wanted: str, keys: list[str] | None = None) -> Any:
        """Run a script that publishes nothing of its caller's.

        :param wanted: what Redis should do, for the error.
        :param keys: None is the list of processes.
        """
        keys = keys or [self._names.processes]
        _require_patched_sockets()
        try:
            with within(self._seconds):
                answer = self._clients.get().run(script, keys, arguments)
        except (redis.RedisError, OSError) as error:
            raise self._refusal(wanted, keys, error) from error
        return answer

    def _refusal(self, wanted: str, keys: list[str], error: Exception) -> BrokerUnavailable:
        advice = self._health.advice(diagnose(error), keys)
        return BrokerUnavailable(f"Redis did not {wanted} ({error_text(error)}): {advice}")


def _are_sockets_green() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and is_green() and bool(monkey.is_module_patched("socket"))


def _require_patched_sockets() -> None:
    """Raise where a greenlet would wait for a socket that gevent does not know, and hold up all others."""
    gevent = sys.modules.get("gevent")
    if gevent is None or _are_sockets_green():
        return
    if isinstance(gevent.getcurrent(), sys.modules["gevent.greenlet"].Greenlet):
        raise UnsupportedWorker(
            "this runs in gevent, whose sockets are not patched, so waiting for Redis would block everybody: call "
            "gevent.monkey.patch_all() first, as gunicorn's gevent worker does"
        )
