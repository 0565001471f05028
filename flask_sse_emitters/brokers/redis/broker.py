"""``redis://`` and its kin: channels that every process shares, kept in Redis or Valkey.

One script gives an event its offset, keeps it and announces it (:mod:`.redis_wire`). Each process listens to the
channels that have a client there (:mod:`.redis_ear`). Where Redis cannot be reached, streams stay open, publishing is
an error, and what others published meanwhile comes when it is back.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import redis

from ...errors import BrokerUnavailable, UnsupportedWorker
from ...runtime.fork import reset_after_fork
from ...runtime.gevent_loop import is_green
from ...runtime.worker_pool import weakly
from ...wire.frame import Frame
from ..base import Broker, Listener, Published, Start
from ..event_ids import Position, new_epoch, read_ids
from ..event_log import Bounds
from .client import Clients, Script, within
from .errors import KEYS, diagnose, may_be_done, shown
from .health import PUBLISHING, Health
from .positions import Known, KnownEvents
from .scripts import PROCESSES, PUBLISH, SUM, TRY, Names, publish_arguments, read_bounds, read_process
from .subscriber import LOOK_EVERY, LOOK_EVERY_IN_CLUSTER, Ear
from .url import Address

log = logging.getLogger("flask_sse_emitters.brokers.redis")

#: An id that cannot be read.
NOWHERE = Position("", 0)


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
        self._names = Names(prefix, self._address.db)
        self._seconds = publish_seconds
        self._reset()
        reset_after_fork(self._reset)

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        keys = self._names.keys(channel, key)
        _refuse_unpatched()
        try:
            with within(self._seconds):
                event_id, is_new, ms, is_begun, other = self._run_publish(channel, keys, frame, bounds)
        except (redis.RedisError, OSError) as error:
            raise self._publish_failed(channel, keys, error) from error
        self._health.works(PUBLISHING)
        self._health.channel_works(PUBLISHING, channel)
        if is_begun:
            log.warning("%s held something else than this package puts there: it was deleted and begun anew", keys[1])
        if bounds is not None and (before := read_bounds(other)) is not None:
            self._warn_of_bounds(channel, bounds, before)
        published = Published(event_id.decode(), bool(is_new))
        if published.is_new:
            [position] = read_ids(published.id, 1) or [NOWHERE]
            self._known.note(channel, Known(*position, int(ms), is_sure=True))
        return published

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        _refuse_unpatched()
        self._ear.add(channel, listener)
        return None

    def subscribe_first(self, channel: str, listener: Listener) -> Start | None:
        _refuse_unpatched()
        self._ear.add(channel, listener, is_first=True)
        return None

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        self._ear.remove(channel, listener)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        self._ear.look_again(channel, done)

    def count_again(self, channel: str) -> None:
        self._ear.count_again(channel)

    def clients_elsewhere(self, channel: str) -> int:
        arguments = [self.process, self._names.process, channel]
        return int(self._ask(SUM, arguments, "count the clients"))

    def processes(self) -> list[dict[str, Any]]:
        arguments = [self.process, self._names.process]
        return [read_process(*each) for each in self._ask(PROCESSES, arguments, "say what processes there are")]

    def check_writable(self) -> None:
        self._ask(TRY, [], "take a write", self._names.probe)

    def status(self) -> dict[str, Any]:
        return self._health.status()

    def close(self) -> None:
        self._ear.close()
        self._ear.await_end()
        self._clients.close()

    def _reset(self) -> None:
        if (before := getattr(self, "_ear", None)) is not None:
            before.abandon()
        self._known = KnownEvents()
        self._has_warned = False  # of bounds that differ from those of another process
        self.process = new_epoch() + new_epoch()
        # The thread that listens keeps none of these alive, nor this broker: once it is dropped, that thread ends.
        self._health = Health(self._address.shown, weakly(self._has_changed))
        self._clients = Clients(self._address)
        look_every = LOOK_EVERY_IN_CLUSTER if self._address.kind == "cluster" else LOOK_EVERY
        self._ear = Ear(
            self._clients.get,
            self._names,
            self.process,
            self._health,
            self._known,
            look_every,
            weakly(self._say_of_itself),
        )
        weakref.finalize(self, self._ear.close).atexit = False  # at exit streams end first

    def _has_changed(self) -> None:
        self.changed()

    def _say_of_itself(self) -> Mapping[str, Any] | None:
        return self.about()

    def _warn_of_bounds(self, channel: str, bounds: Bounds, before: Bounds) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "channel %r keeps %d events for %g s from now on, as this process has it, and kept %d for %g s before: "
                "give all processes the same SSE_HISTORY, SSE_HISTORY_SECONDS and history= (this is said once)",
                channel,
                *bounds,
                *before,
            )

    def _run_publish(self, channel: str, keys: list[str], frame: Frame, bounds: Bounds | None) -> list[Any]:
        client, known, announced = self._clients.get(), self._ear.known(channel), self._names.announcements(channel)

        def run(durable: str) -> list[Any]:
            arguments = publish_arguments(new_epoch(), frame, bounds, announced, known, durable)
            answer: list[Any] = client.run(PUBLISH, keys, arguments)
            return answer

        answer = run("")
        if answer[0] == b"?":  # another server is the master: see PUBLISH
            answer = run("1" if client.is_durable() else "0")
        return answer

    def _publish_failed(self, channel: str, keys: list[str], error: Exception) -> BrokerUnavailable:
        trouble = diagnose(error)
        if trouble is KEYS:
            self._health.channel_fails(PUBLISHING, channel, keys, error)
        else:
            self._health.fails(PUBLISHING, error)
        may_be = may_be_done(error)
        outcome = "it may have been published, so give a key to try again safely" if may_be else "nothing was published"
        advice = self._health.advice(trouble, keys)
        return BrokerUnavailable(
            f"Redis did not confirm the event ({shown(error)}): {outcome}; {advice}", may_be_published=may_be
        )

    def _ask(self, script: Script, arguments: list[Any], wanted: str, key: str | None = None) -> Any:
        """Run a script that concerns no channel.

        :param wanted: what Redis should do, for the error.
        :param key: None is the list of processes.
        """
        keys = [key or self._names.processes]
        _refuse_unpatched()
        try:
            with within(self._seconds):
                answer = self._clients.get().run(script, keys, arguments)
        except (redis.RedisError, OSError) as error:
            advice = self._health.advice(diagnose(error), keys)
            raise BrokerUnavailable(f"Redis did not {wanted} ({shown(error)}): {advice}") from error
        return answer


def _are_sockets_green() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and is_green() and bool(monkey.is_module_patched("socket"))


def _refuse_unpatched() -> None:
    """Say so where a greenlet would wait for a socket that gevent knows nothing of, and everybody with it."""
    gevent = sys.modules.get("gevent")
    if gevent is None or _are_sockets_green():
        return
    if isinstance(gevent.getcurrent(), sys.modules["gevent.greenlet"].Greenlet):
        raise UnsupportedWorker(
            "this runs in gevent, whose sockets are not patched, so waiting for Redis would block everybody: call "
            "gevent.monkey.patch_all() first, as gunicorn's gevent worker does"
        )
