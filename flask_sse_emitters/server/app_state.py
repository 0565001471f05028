"""What belongs to one app: its settings, streams and channels, and what it is warned of."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable
from functools import cache, partial
from importlib import metadata
from typing import Any

from flask import Flask, Response, request

from .. import signals
from ..access.recheck import recheck
from ..access.revocation import Revocation, Revocations
from ..access.rules import Rules
from ..brokers import Broker, broker_of
from ..channels.channel import Channels, Options
from ..config.hints import lifetime_hint
from ..config.settings import Settings
from ..runtime.fork import reset_after_fork
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER
from ..streams.emitter import SseEmitter
from ..streams.registry.limits import OTHER_FILES, file_limit
from ..streams.registry.open_streams import StreamRegistry
from .response import respond, streaming
from .worker import thread_count, watch_worker, worker_count

log = logging.getLogger("flask_sse_emitters.state")


class State:
    """What belongs to one app.

    :param hints: at its config, to be warned of.
    """

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        options: dict[str, Options],
        rules: Rules,
        hints: Iterable[str] = (),
    ) -> None:
        self.settings = settings
        self.streams = StreamRegistry(settings, app=app)
        ask = partial(recheck, app, rules)
        self.channels = Channels(_make_broker(settings), settings, options, self.streams, app)
        self.revocations = Revocations(self.channels.broker, self.streams, self.channels.members, ask)
        self.channels.before_subscribing = self.revocations.listen
        self.channels.broker.changed = self._broker_changed
        self.channels.broker.about = self._about
        self.streams.at_exit = self.channels.broker.close
        self.warnings: list[str] = []
        self._lifetime_warned = False
        self.app = app
        self._reset()
        reset_after_fork(self._reset)
        self._response_class = app.response_class
        self._streaming_class = streaming(app.response_class)
        for hint in hints:
            self._warn(hint)
        self._check_workers(worker_count())

    def _reset(self) -> None:
        self._has_begun = False
        self._since = time.time()
        self._lock = native_lock()
        self._changes = 0  # of the broker's state
        self._told = "ok"  # of it
        self._telling = False  # somebody tells of it: one at a time, so that the last one told is the last one

    def respond(self, emitter: SseEmitter, status: int | str, headers: Any) -> Response:
        if not self._has_begun:
            self._has_begun = True
            self._check_files()
            self._check_workers(2 if request.environ.get("wsgi.multiprocess") else 1)
            self._check_threads(thread_count())
            watch_worker()
        if self.settings.max_clients_per_address is not None and not request.remote_addr:
            self._warn(
                "SSE_MAX_CLIENTS_PER_ADDRESS is set, but requests come without an address: behind a proxy that speaks "
                "through a unix socket, put werkzeug.middleware.proxy_fix.ProxyFix around app.wsgi_app"
            )
        if self._response_class is not self.app.response_class:  # set since
            self._response_class = self.app.response_class
            self._streaming_class = streaming(self._response_class)
        return respond(emitter, self._streaming_class, self.settings, self.streams, status, headers)

    def check_lifetime(self, timeout: Any) -> None:
        """Warn of the first emitter's lifetime that is probably meant to be milliseconds. From any thread."""
        if not self._lifetime_warned and (hint := lifetime_hint("timeout", timeout)):
            self._lifetime_warned = True
            self._warn(hint)

    def stats(self) -> dict[str, Any]:
        """See :meth:`.SSE.stats`."""
        return {**self._figures(), **self.channels.counts()}

    def _figures(self) -> dict[str, Any]:
        streams, channels = self.streams, self.channels
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "version": _version(),
            "max_clients": streams.max_clients,
            **streams.counts(),
            "opened": streams.opened,
            "closed": dict(streams.closed),
            "refused": streams.refused,
            "refused_by": dict(streams.refused_by),
            "denied": streams.denied,
            **channels.publish_counts(),
            "broker": {"scheme": self.settings.broker_url.partition("://")[0], **channels.broker.status()},
            "draining": streams.is_draining,
            "warnings": list(self.warnings),
        }

    def revoke(self, revocation: Revocation) -> None:
        """End streams, here and in all other processes: see :meth:`.Revocations.revoke`."""
        self.channels.check_open()
        self.revocations.revoke(revocation)

    def processes(self) -> list[dict[str, Any]]:
        """See :meth:`.SSE.processes`."""
        others = self.channels.broker.processes()
        if not self._has_begun:
            return others
        return [{**self.stats(), "id": self.channels.broker.process, "age": 0.0}, *others]

    def _about(self) -> dict[str, Any] | None:
        """What other processes are told of this one; their channels they know."""
        if not self._has_begun:
            return None
        return {name: value for name, value in self._figures().items() if name != "slow"}

    def _broker_changed(self) -> None:
        if not signals.broker_changed.receivers:
            return
        with self._lock:
            self._changes += 1
            begins, self._telling = not self._telling, True
        if begins:
            SCHEDULER.run(self._tell_of_broker)

    def _tell_of_broker(self) -> None:
        seen = 0
        while self._has_news(seen):
            seen = self._changes
            status = self.channels.broker.status()
            state = status["state"]
            if state != self._told:
                self._told = state
                with self.app.app_context():
                    signals.send(signals.broker_changed, self.app, state=state, error=status.get("error"))

    def _has_news(self, seen: int) -> bool:
        with self._lock:
            self._telling = seen != self._changes
            return self._telling

    def _check_files(self) -> None:
        wanted, room = self.settings.max_clients, self.streams.max_clients
        if room < wanted:
            self._warn(
                f"SSE_MAX_CLIENTS={wanted}, but this process may open {file_limit()} files, of which each client takes "
                f"one, and {OTHER_FILES} are kept for others: it takes {room} clients. Raise the limit to "
                f"{wanted + OTHER_FILES} (ulimit -n, or LimitNOFILE= in systemd), or lower SSE_MAX_CLIENTS"
            )

    def _check_workers(self, count: int) -> None:
        if count > 1 and not self.channels.broker.is_shared:
            self._warn(
                f"SSE_BROKER_URL={self.settings.broker_url!r} reaches the clients of one process, and this server runs "
                "several: events published in one would miss the others' clients. Set SSE_BROKER_URL to a broker that "
                "reaches them all, such as redis://localhost:6379/0, or run one worker"
            )

    def _check_threads(self, count: int | None) -> None:
        if count is not None and self.streams.max_clients >= count:
            self._warn(
                f"SSE_MAX_CLIENTS={self.settings.max_clients}, but this gthread worker has {count} threads, and each "
                f"stream holds one: {count} streams leave none for any other request, which then waits until one ends. "
                "Raise --threads above SSE_MAX_CLIENTS, or lower SSE_MAX_CLIENTS below --threads, or use "
                "--worker-class gevent"
            )

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning(text)


@cache
def _version() -> str:
    """This package's version; "unknown" where it is not installed."""
    try:
        return metadata.version("flask-sse-emitters")
    except metadata.PackageNotFoundError:
        return "unknown"


def _make_broker(settings: Settings) -> Broker:
    try:
        return broker_of(settings)
    except ValueError as error:
        raise ValueError(f"SSE_BROKER_URL: {error}") from error
