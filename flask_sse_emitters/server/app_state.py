"""The state of one app: its settings, streams and channels, and its warnings."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Sequence
from functools import cache, partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Response, current_app, has_app_context, request

from .. import signals
from ..access import origins
from ..access.recheck import recheck
from ..access.revocation import Revocation, Revocations
from ..access.rules import Rules
from ..brokers import Broker, broker_of
from ..channels.options import OptionTable
from ..channels.registry import Channels
from ..config.context import EXTENSION
from ..config.hints import lifetime_hint
from ..config.settings import Settings
from ..errors import NotInitialized
from ..moving.app import APPS, MovingApp
from ..moving.process import MOVER
from ..runtime.fork import reset_after_fork
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER
from ..streams.emitter import SseEmitter
from ..streams.registry.limits import OTHER_FILES, file_limit
from ..streams.registry.open_streams import StreamRegistry
from ..types import Figures, Process, SlowStream, Stats
from .response import make_streaming_class, respond, when_called
from .view_results import answer_needless, is_needless
from .worker import (
    find_worker,
    is_one_of_several,
    seconds_to_finish,
    server_name,
    threads_for_requests,
    watch_worker,
    worker_count,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger("flask_sse_emitters.state")


class _WithSlow(Figures):
    slow: list[SlowStream]


def _without_slow(figures: _WithSlow) -> Figures:
    """Return what other processes are told: not what single clients have."""
    del figures["slow"]  # type: ignore[misc]
    return figures


class State:
    """The settings, streams and channels of one app: ``app.extensions["sse_emitters"]``. Any thread may call.

    :param options: of its channels.
    :param hints: warnings about its config.
    """

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        options: OptionTable,
        rules: Rules,
        hints: Iterable[str] = (),
    ) -> None:
        self.app = app
        self.settings = settings
        self.streams = StreamRegistry(settings, app=app)
        self.channels = Channels(_make_broker(settings), settings, options, self.streams, app)
        broker = self.channels.broker
        ask_again = partial(recheck, app, rules)
        self.revocations = Revocations(broker, self.streams, self.channels.streams, ask_again)
        self.channels.before_subscribing = self.revocations.listen
        broker.changed = _BrokerSignals(app, broker).broker_changed
        broker.about = self._about
        self.streams.has_runs = lambda: self.channels.tasks.are_running
        self.streams.at_exit = self.channels.stop
        self.streams.seconds_to_finish = seconds_to_finish
        self.warnings: list[str] = []
        self._is_warned_of_lifetime = False
        self._reset()
        reset_after_fork(self._reset)
        self._response_class = app.response_class
        self._streaming_class = make_streaming_class(app.response_class)
        self._moving = MovingApp(
            app.import_name,
            _version(),
            settings,
            self.streams,
            self.channels,
            partial(recheck, app, rules),
            self._begin,
        )
        APPS.add(self._moving)
        if settings.move == "auto" and find_worker() is not None:  # this process serves it, and may get streams
            MOVER.expect()
            watch_worker()
        for hint in hints:
            self.warn(hint)
        self._check_workers(worker_count())

    def _reset(self) -> None:
        self._has_begun = False  # it has had a stream
        self._since = time.time()

    def respond(self, emitter: SseEmitter, status: int | str, headers: Any) -> Response:
        """Return the response to the current request that carries the emitter's stream: see :func:`.respond`.

        Where the stream would be over for good, it is a 204 in place of it.
        """
        if is_needless(emitter):
            response = answer_needless(emitter, headers)
            origins.allow_origin(response.headers, self.settings)
            return response
        self._begin()
        if self.settings.max_clients_per_address is not None and not request.remote_addr:
            self.warn(
                "SSE_MAX_CLIENTS_PER_ADDRESS is set, but requests come without an address: behind a proxy that speaks "
                "through a unix socket, put werkzeug.middleware.proxy_fix.ProxyFix around app.wsgi_app"
            )
        if self._response_class is not self.app.response_class:  # the app has another one by now
            self._response_class = self.app.response_class
            self._streaming_class = make_streaming_class(self._response_class)
        response = respond(emitter, self._streaming_class, self.settings, self.streams, status, headers)
        if self.streams.thread_use.server is None:
            when_called(response, self._note_server)
        return response

    def _begin(self) -> None:
        """Note that there is a stream, perhaps one of another process. Idempotent."""
        if not self._has_begun:
            self._has_begun = True
            self._check_files()
            self.streams.thread_use.on_all_taken = self._warn_of_threads
            watch_worker()

    def check_lifetime(self, timeout: Any) -> None:
        """Warn of the first emitter's lifetime that is probably meant to be milliseconds."""
        if not self._is_warned_of_lifetime and (hint := lifetime_hint("timeout", timeout)):
            self._is_warned_of_lifetime = True
            self.warn(hint)

    def warn(self, text: str) -> None:
        """Log a warning, and keep it for :meth:`stats`. Idempotent for the same text."""
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning(text)

    def stats(self) -> Stats:
        """Return the figures of this process: see :meth:`.SSE.stats`."""
        return {**self._figures(), **self.channels.counts()}

    def processes(self) -> list[Process]:
        """Return the figures of all processes: see :meth:`.SSE.processes`. May wait for the broker."""
        others = cast("list[Process]", self.channels.broker.processes())  # as far as they can be trusted
        if not self._has_begun:
            return others
        own: Process = {
            **_without_slow(self._figures()),
            "channels": self.channels.counts()["channels"],
            "id": self.channels.broker.process,
            "age": 0.0,
        }
        return [own, *others]

    def revoke(self, revocation: Revocation) -> None:
        """End streams, here and in all other processes: see :meth:`.Revocations.revoke`."""
        self.channels.check_open()
        self.revocations.revoke(revocation)

    def _figures(self) -> _WithSlow:
        streams, channels = self.streams, self.channels
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "version": _version(),
            "max_clients": streams.max_clients,
            **streams.counts(),
            "server": streams.thread_use.figures(),
            "opened": streams.opened,
            "closed": dict(streams.closed),
            "refused": streams.refused,
            "refused_by": dict(streams.refused_by),
            "denied": streams.denied,
            **channels.publish_counts.read(),
            "broker": {"scheme": self.settings.broker_url.partition("://")[0], **channels.broker.status()},
            "draining": streams.is_draining,
            "warnings": list(self.warnings),
        }

    def _about(self) -> Figures | None:
        """Return the figures that other processes get of this one; its channels they know from the broker."""
        return _without_slow(self._figures()) if self._has_begun else None

    def _note_server(self, environ: WSGIEnvironment) -> None:
        """Find out what serves the app. Only on the server's thread, where that shows."""
        self._check_workers(2 if is_one_of_several(environ) else 1)
        self.streams.thread_use.threads = threads_for_requests(environ)
        self.streams.thread_use.server = server_name(environ)

    def _check_files(self) -> None:
        wanted, room = self.settings.max_clients, self.streams.max_clients
        if room < wanted:
            self.warn(
                f"SSE_MAX_CLIENTS={wanted}, but this process may open {file_limit()} files, of which each client takes "
                f"one, and {OTHER_FILES} are kept for others: it takes {room} clients. Raise the limit to "
                f"{wanted + OTHER_FILES} (ulimit -n, or LimitNOFILE= in systemd), or lower SSE_MAX_CLIENTS"
            )

    def _check_workers(self, count: int) -> None:
        if count > 1 and not self.channels.broker.is_shared:
            self.warn(
                f"SSE_BROKER_URL={self.settings.broker_url!r} reaches the clients of one process, and this server runs "
                "several: events published in one would miss the others' clients. Set SSE_BROKER_URL to a broker that "
                "reaches them all, such as redis://localhost:6379/0, or run one worker"
            )

    def _warn_of_threads(self, count: int) -> None:
        self.warn(
            f"{count} streams are open, and each holds one of the {count} threads that this process has for requests: "
            "all others wait until a stream ends. Start the server with more threads, or set SSE_MAX_CLIENTS below "
            "their number, or use a worker of gunicorn to which streams are no burden: sse.stats()['declined'] says "
            "why these are"
        )


class _BrokerSignals:
    """Sends :data:`.signals.broker_changed`, one at a time, so that the last one sent has the present state."""

    def __init__(self, app: Flask, broker: Broker) -> None:
        self._app = app
        self._broker = broker
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self._changes = 0  # of the broker's state, so far
        self._sent = "ok"  # the state that was last sent
        self._is_sending = False

    def broker_changed(self) -> None:
        """Send the broker's state in the background. From any thread; never blocks."""
        if not signals.broker_changed.has_receivers_for(self._app):
            return
        with self._lock:
            self._changes += 1
            begins, self._is_sending = not self._is_sending, True
        if begins:
            SCHEDULER.run(self._send)

    def _send(self) -> None:
        seen = 0
        while self._claim_change(seen):
            seen = self._changes
            status = self._broker.status()
            state = status["state"]
            if state != self._sent:
                self._sent = state
                with self._app.app_context():
                    signals.send(signals.broker_changed, self._app, state=state, error=status.get("error"))

    def _claim_change(self, seen: int) -> bool:
        """Return whether there is a change that was not seen; else sending ends with this."""
        with self._lock:
            self._is_sending = seen != self._changes
            return self._is_sending


def find_state(states: Sequence[State], app: Flask | None = None) -> State:
    """Return the state of this app, or of the current one, among those of one :class:`.SSE`.

    :param states: which are all the apps of that SSE.
    :raises NotInitialized: where the app is not among them; or, without one, where it is not clear which is meant.
    """
    if app is None and len(states) == 1:
        return states[0]
    if app is not None or has_app_context():
        found = (current_app if app is None else app).extensions.get(EXTENSION)
        if isinstance(found, State) and found in states:
            return found
    if app is not None:
        raise NotInitialized(f"this SSE does not have {app!r}: call init_app(app) first")
    if not states:
        raise NotInitialized("this SSE has no app: call init_app(app) first")
    raise NotInitialized(f"this SSE has {len(states)} apps: say which, with app.app_context()")


@cache
def _version() -> str:
    """Return the version of this package; "unknown" where it is not installed."""
    try:
        return metadata.version("flask-sse-emitters")
    except metadata.PackageNotFoundError:
        return "unknown"


def _make_broker(settings: Settings) -> Broker:
    try:
        return broker_of(settings)
    except ValueError as error:
        raise ValueError(f"SSE_BROKER_URL: {error}") from error
