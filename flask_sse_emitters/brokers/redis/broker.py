"""``redis://`` and its kin: channels that every process shares, kept in Redis or Valkey.

One script gives an event its offset, keeps it and announces it (:mod:`.scripts`). Each process subscribes to the
channels that have a client there (:mod:`.subscriber`). Where Redis cannot be reached, streams stay open, publishing is
an error, and the events that others published meanwhile arrive when it is back.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import redis

from ...errors import BrokerUnavailable, UnsupportedWorker
from ...runtime.calls import weakly
from ...runtime.fork import reset_after_fork
from ...runtime.gevent_loop import is_green
from ...wire.frame import Frame
from ..base import Broker, Listener, Published, Start
from ..event_ids import Position, new_epoch, read_ids
from ..event_log import Bounds
from .client import Clients
from .connections import within
from .errors import KEYS, diagnose, error_text, may_have_run
from .health import PUBLISHING, Health
from .messages import KeyNames, KnownEvent, publish_arguments, read_bounds, read_process
from .scripts import PROCESSES, PUBLISH, SUM, TRY_WRITE, Script
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
        keys = self._names.keys(channel, key)
        _require_patched_sockets()
        try:
            with within(self._seconds):
                event_id, is_new, ms, is_reset, other = self._run_publish(channel, keys, frame, bounds)
        except (redis.RedisError, OSError) as error:
            raise self._publish_error(channel, keys, error) from error
        self._health.worked(PUBLISHING)
        self._health.channel_worked(PUBLISHING, channel)
        if is_reset:
            log.warning("%s held something else than this package puts there: it was deleted and begun again", keys[1])
        if bounds is not None and (before := read_bounds(other)) is not None:
            self._warn_of_bounds(channel, bounds, before)
        published = Published(event_id.decode(), bool(is_new))
        if published.is_new:
            [position] = read_ids(published.id, 1) or [UNKNOWN_POSITION]
            self._subscriber.note_known(channel, KnownEvent(*position, int(ms), is_sure=True))
        return published

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
        self._ask(TRY_WRITE, [], "take a write", self._names.probe)

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

    def _run_publish(self, channel: str, keys: list[str], frame: Frame, bounds: Bounds | None) -> list[Any]:
        client, announced = self._clients.get(), self._names.announcements(channel)
        known = self._subscriber.known(channel)

        def run(durable: str) -> list[Any]:
            arguments = publish_arguments(new_epoch(), frame, bounds, announced, known, durable)
            answer: list[Any] = client.run(PUBLISH, keys, arguments)
            return answer

        answer = run("")
        if answer[0] == b"?":  # another server is the master: see PUBLISH
            answer = run("1" if client.is_durable() else "0")
        return answer

    def _publish_error(self, channel: str, keys: list[str], error: Exception) -> BrokerUnavailable:
        trouble = diagnose(error)
        if trouble is KEYS:
            self._health.channel_failed(PUBLISHING, channel, keys, error)
        else:
            self._health.failed(PUBLISHING, error)
        may_be = may_have_run(error)
        outcome = "it may have been published, so give a key to try again safely" if may_be else "nothing was published"
        advice = self._health.advice(trouble, keys)
        return BrokerUnavailable(
            f"Redis did not confirm the event ({error_text(error)}): {outcome}; {advice}", may_be_published=may_be
        )

    def _ask(self, script: Script, arguments: list[Any], wanted: str, key: str | None = None) -> Any:
        """Run a script that concerns no channel.

        :param wanted: what Redis should do, for the error.
        :param key: None is the list of processes.
        """
        keys = [key or self._names.processes]
        _require_patched_sockets()
        try:
            with within(self._seconds):
                answer = self._clients.get().run(script, keys, arguments)
        except (redis.RedisError, OSError) as error:
            advice = self._health.advice(diagnose(error), keys)
            raise BrokerUnavailable(f"Redis did not {wanted} ({error_text(error)}): {advice}") from error
        return answer


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
