"""The Flask extension."""

from __future__ import annotations

import logging
import sys
from functools import cached_property
from typing import Any

from flask import Blueprint, Flask, Response, current_app, has_app_context, request

from . import wsgi
from .blueprint import make_blueprint
from .brokers import Broker, broker_of
from .channel import Channel, Channels, Options, check_name
from .cli import commands
from .emitter import SseEmitter
from .errors import NotInitialized
from .settings import EXTENSION, Settings, checked, made_in_request, read_config, register
from .streams import Streams
from .worker import watch_worker, worker_count

log = logging.getLogger(__name__)

#: A process opens so many files beside its clients' sockets, roughly.
OTHER_FILES = 64


class SSE:
    """Server-Sent Events for Flask apps.

    ::

        sse = SSE(app)

    or, with an app factory, ``sse = SSE()`` and later ``sse.init_app(app)``. One ``SSE`` may serve several apps.

    Config keys; durations are seconds or a timedelta:

    ``SSE_TIMEOUT`` (1800)
        The whole lifetime of a stream; 0 means never. A browser reconnects by itself.
    ``SSE_HEARTBEAT`` (15)
        After so long without an event a comment is written, so that proxies keep the stream open; 0 means never.
    ``SSE_RETRY`` (3000)
        How long clients wait before they reconnect, an int of milliseconds.
    ``SSE_MAX_PENDING`` (1000), ``SSE_MAX_PENDING_BYTES`` (1048576)
        How many events, and bytes of them, may wait for a slow client.
    ``SSE_OVERFLOW`` (``"close"``)
        What happens beyond that: ``"close"`` ends the stream, ``"drop_oldest"`` makes room, ``"coalesce"`` first
        replaces the pending event of the same name.
    ``SSE_WRITE_SECONDS`` (30)
        A client that takes nothing of what is written to it for so long counts as gone; 0 means never.
    ``SSE_MAX_EVENT_BYTES`` (1048576)
        A larger event, encoded, is refused with :class:`InvalidEvent` where it is sent.
    ``SSE_HANDOFF`` (``"auto"``)
        Whether streams are written without a greenlet for each. ``"auto"``: where nothing stands between them and
        gunicorn's gevent worker. ``"on"``: also behind middleware, which then sees each stream end after its first
        bytes. ``"off"``: never.
    ``SSE_ATTACH_SECONDS`` (30)
        An emitter whose stream has not begun by then ends with an error.
    ``SSE_MAX_CLIENTS`` (10000)
        So many streams one process holds open; more are sent away, to try again later.
    ``SSE_HISTORY`` (1000), ``SSE_HISTORY_SECONDS`` (300)
        How many events of each channel are kept for clients that come back, and for how long; 0 events is none, and
        0 seconds is for as long as there are no newer ones.
    ``SSE_BROKER_URL`` (``"memory://"``)
        What keeps the channels, and takes their events to other processes: ``memory://`` knows only its own,
        ``redis://`` and its kin are shared by all.
    ``SSE_BROKER_PREFIX`` (``"sse"``)
        Begins the names of all that is kept there, so that several apps may share a server.
    ``SSE_PUBLISH_SECONDS`` (2)
        How long publishing may wait for the broker.
    ``SSE_DRAIN_SECONDS`` (5)
        How long streams have to end when the worker stops.

    :param app: as for :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._states: list[_AppState] = []
        self._options: dict[str, Options] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the config, let views return emitters, and add ``flask sse`` to the app's commands.

        :raises ValueError: where a config key has a value that it does not accept.
        :raises RuntimeError: where the app has an ``SSE`` already.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError("this app has an SSE already: import that one instead of calling init_app() again")
        settings = Settings(
            **read_config(app.config), dumps=lambda data: app.json.dumps(data), app_context=app.app_context
        )
        app.extensions[EXTENSION] = state = _AppState(app, settings, self._options)
        self._states.append(state)
        register(state)
        app.teardown_request(_end_failed)
        make_response = app.make_response

        def make_response_of_emitter(rv: Any) -> Response:
            return make_response(_respond_for(rv))

        app.make_response = make_response_of_emitter  # type: ignore[method-assign]
        if commands.name not in app.cli.commands:  # one of the app's own stays
            app.cli.add_command(commands)

    def channel(
        self, name: str, *, public: bool = False, history: int | None = None, max_clients: int | None = None
    ) -> Channel:
        """A channel, which needs no other beginning than its name. What is said of it here holds for good.

        :param name: 1 to 200 ASCII letters, digits and ``. _ - : / @``.
        :param public: whether anybody may read it.
        :param history: how many of its events are kept, from 0. None takes ``SSE_HISTORY``.
        :param max_clients: how many clients may read it in one process, from 1. None is any number.
        :raises InvalidChannel: where this is no name.
        :raises ValueError: names the parameter, and what it accepts.
        """
        check_name(name)
        said = {
            "public": bool(public) or None,
            "history": None if history is None else checked("history", history),
            "max_clients": None if max_clients is None else checked("max_clients", max_clients),
        }
        for option, value in said.items():
            if value is not None:
                setattr(self._options.setdefault(name, Options()), option, value)
        return Channel(name, self._channels)

    def publish(
        self, channel: str, data: Any, *, event: str | None = None, retry: int | None = None, key: str | None = None
    ) -> str:
        """Publish an event to all clients of a channel, in every process that the broker reaches.

        From any thread, also outside a request; not from a signal handler. Clients that are away for a moment get it
        when they come back, as far as ``SSE_HISTORY`` and ``SSE_HISTORY_SECONDS`` go.

        :param data: a str goes as it is, anything else as JSON; or an :class:`Event` without an id.
        :param event: its name; None is ``"message"``.
        :param retry: milliseconds until clients reconnect from now on.
        :param key: makes a retry safe: a second event with the same one within 5 minutes is not published.
        :return: the event's id, ``<epoch>-<offset>``; with a key that was there before, that of the first one.
        :raises InvalidChannel: where this is no name of a channel.
        :raises InvalidEvent: where the event cannot be written.
        :raises BrokerUnavailable: where the broker cannot be reached; the event may have been published.
        :raises NotInitialized: outside an app context, where there is not exactly one app.
        """
        return self._channels().publish(channel, data, event, retry, key)

    @cached_property
    def blueprint(self) -> Blueprint:
        """The endpoints of channels: ``app.register_blueprint(sse.blueprint, url_prefix="/events")``.

        ``GET /events?channel=a&channel=b`` and ``GET /events/a`` are streams. Channels of one stream share a
        connection, of which browsers open six to an origin; their names do not show in the events.
        """
        return make_blueprint(self._channels)

    def stats(self) -> dict[str, Any]:
        """This process's figures, for people and monitors.

        ``clients`` (open streams), ``outlets`` (who writes them: ``handed_off`` or ``server``), ``declined`` (why not
        handed off: clients by reason), ``channels`` (clients by channel), ``opened``, ``closed`` (by close reason),
        ``refused``, ``published`` (since the beginning), ``broker`` (its ``scheme``, and its ``state``: ``"ok"``, or
        ``"degraded"`` with the ``error``), ``draining``, ``warnings``.
        """
        state = self._state()
        streams, channels = state.streams, state.channels
        return {
            **streams.counts(),
            "channels": channels.counts(),
            "opened": streams.opened,
            "closed": dict(streams.closed),
            "refused": streams.refused,
            "published": channels.published,
            "broker": {"scheme": state.settings.broker_url.partition("://")[0], **channels.broker.status()},
            "draining": streams.is_draining,
            "warnings": list(state.warnings),
        }

    def shutdown(self) -> None:
        """End all streams of the app as a worker that stops does, and wait for that: ``SSE_DRAIN_SECONDS`` at most.

        What is pending is written first, then a ``retry:`` of random length, then a clean end. New streams end at once
        from then on.
        """
        streams = self._state().streams
        streams.drain()
        streams.await_drained()

    def _channels(self) -> Channels:
        return self._state().channels

    def _state(self) -> _AppState:
        if has_app_context():
            here = current_app.extensions.get(EXTENSION)
            if isinstance(here, _AppState) and here in self._states:
                return here
        if len(self._states) == 1:
            return self._states[0]
        if not self._states:
            raise NotInitialized("this SSE has no app: call init_app(app) first")
        raise NotInitialized(f"this SSE has {len(self._states)} apps: say which, with app.app_context()")


class _AppState:
    """What belongs to one app."""

    def __init__(self, app: Flask, settings: Settings, options: dict[str, Options]) -> None:
        self.settings = settings
        self.streams = Streams(settings)
        self.channels = Channels(_make_broker(settings), settings, options)
        self.warnings: list[str] = []
        self._app = app
        self._has_begun = False
        self._response_class = app.response_class
        self._streaming_class = wsgi.streaming(app.response_class)
        self._check_files()
        self._check_workers(worker_count())

    def respond(self, emitter: SseEmitter, status: int | str, headers: Any) -> Response:
        if not self._has_begun:
            self._has_begun = True
            self._check_workers(2 if request.environ.get("wsgi.multiprocess") else 1)
            watch_worker()
        if self._response_class is not self._app.response_class:  # set since
            self._response_class = self._app.response_class
            self._streaming_class = wsgi.streaming(self._response_class)
        return wsgi.respond(emitter, self._streaming_class, self.settings, self.streams, status, headers)

    def _check_files(self) -> None:
        if sys.platform == "win32":
            return
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.settings.max_clients + OTHER_FILES
        if resource.RLIM_INFINITY != limit < wanted:
            self._warn(
                f"SSE_MAX_CLIENTS={self.settings.max_clients}, but this process may open {limit} files, and each "
                f"client takes one: raise the limit to {wanted} (ulimit -n, or LimitNOFILE= in systemd), or lower "
                "SSE_MAX_CLIENTS"
            )

    def _check_workers(self, count: int) -> None:
        if count > 1 and not self.channels.broker.is_shared:
            self._warn(
                f"SSE_BROKER_URL={self.settings.broker_url!r} reaches the clients of one process, and this server runs "
                "several: events published in one would miss the others' clients. Set SSE_BROKER_URL to a broker that "
                "reaches them all, such as redis://localhost:6379/0, or run one worker"
            )

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning(text)


def _make_broker(settings: Settings) -> Broker:
    try:
        return broker_of(settings)
    except ValueError as error:
        raise ValueError(f"SSE_BROKER_URL: {error}") from error


def _end_failed(error: BaseException | None) -> None:
    """No client will ever get the emitters of a request that failed."""
    made = made_in_request()
    if error is not None:
        for emitter in made:
            emitter.complete_with_error(error)


def _respond_for(rv: Any) -> Any:
    """A view's result, with the response of an emitter in its place: bare, or the first of a tuple."""
    if isinstance(rv, SseEmitter):
        return rv.response()
    if isinstance(rv, tuple) and rv and isinstance(rv[0], SseEmitter):
        return (rv[0].response(), *rv[1:])
    return rv
