"""The Flask extension."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NoReturn, TypeVar, overload

from flask import Blueprint, Flask, Response, current_app, has_app_context

from .access.revocation import Revocation
from .access.rules import Rule, Rules
from .broadcast.emitters import SseEmitters
from .channels.channel import UNSET, Channel
from .channels.names import check_name, private_name
from .channels.registry import ChannelOptions, Channels
from .config.context import EXTENSION, register_state, take_made_in_request
from .config.hints import config_hints
from .config.settings import Settings, checked, read_config
from .errors import NotInitialized
from .server.app_state import State
from .server.denials import handle_denials
from .server.endpoints import make_blueprint
from .streams.emitter import SseEmitter
from .streams.registry.draining import await_drained, drain
from .streams.registry.identity import check_identity
from .tools.cli import commands
from .tools.monitor import MonitorAccess, MonitorRule, make_monitor

_Rule = TypeVar("_Rule", bound=Rule)
_MonitorRule = TypeVar("_MonitorRule", bound=MonitorRule)


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
    ``SSE_MAX_CLIENTS_PER_IDENTITY`` (None), ``SSE_MAX_CLIENTS_PER_ADDRESS`` (None)
        So many of them for one reader, and for one address; None is any number. Behind a proxy, addresses are what
        Werkzeug's ``ProxyFix`` makes of them. Of IPv6 a whole /64 counts as one.
    ``SSE_CORS_ORIGINS`` (``()``)
        Pages of these origins may read, also with cookies; ``"*"`` alone is any page, without cookies. The endpoints of
        channels deny requests of all other sites' pages.
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
        self._states: list[State] = []
        self._options: dict[str, ChannelOptions] = {}
        self._rules = Rules(self._options)
        self._monitor_access = MonitorAccess()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the config, let views return emitters, and add ``flask sse`` to the app's commands.

        Keys that are probably a mistake, such as ``SSE_TIMOUT``, are warned of: in the log, and in :meth:`stats`.

        :raises TypeError: where this is no Flask app.
        :raises ValueError: where a config key has a value that it does not accept.
        :raises RuntimeError: where the app has an ``SSE`` already.
        """
        if not isinstance(app, Flask):
            raise TypeError(f"SSE() and init_app() take the Flask app, not {app!r}")
        if EXTENSION in app.extensions:
            raise RuntimeError("this app has an SSE already: import that one instead of calling init_app() again")
        given = dict(app.config)  # without the defaults, which are now filled in
        settings = Settings(
            **read_config(app.config), dumps=lambda data: app.json.dumps(data), app_context=app.app_context
        )
        app.extensions[EXTENSION] = state = State(app, settings, self._options, self._rules, config_hints(given))
        self._states.append(state)
        register_state(state)
        app.teardown_request(_end_failed)
        handle_denials(app)
        make_response = app.make_response

        def make_response_of_emitter(rv: Any) -> Response:
            return make_response(_respond_for(rv))

        app.make_response = make_response_of_emitter  # type: ignore[method-assign]
        if commands.name not in app.cli.commands:  # one of the app's own stays
            app.cli.add_command(commands)

    @overload
    def channel(self, name: str, *, history: int | None = ..., max_clients: int | None = ...) -> Channel: ...

    @overload
    def channel(
        self, name: str, *, public: bool, history: int | None = ..., max_clients: int | None = ...
    ) -> Channel: ...

    def channel(
        self, name: str, *, public: object = UNSET, history: int | None = None, max_clients: int | None = None
    ) -> Channel:
        """A channel, which needs no other beginning than its name. What is said of it here holds for good.

        :param name: 1 to 200 ASCII letters, digits and ``. _ - : / @``.
        :param public: True lets anybody read it, and no rule is asked. False is what holds where it is never said. Left
            out, it changes nothing.
        :param history: how many of its events are kept, from 0. None takes ``SSE_HISTORY``.
        :param max_clients: how many clients may read it in one process, from 1. None is any number.
        :raises InvalidChannel: where this is no name.
        :raises ValueError: names the parameter, and what it accepts; or what was said before, which it contradicts.
        """
        name = check_name(name)
        given: dict[str, Any] = {}
        if public is not UNSET:
            if not isinstance(public, bool):
                raise TypeError(f"public is True or False, not {public!r}")
            given["public"] = public
        if history is not None:
            given["history"] = checked("history", history)
        if max_clients is not None:
            given["max_clients"] = checked("max_clients", max_clients)
        if given:
            self._options.setdefault(name, ChannelOptions()).set(name, given)
        return Channel(name, self._channels)

    def publish(
        self, channel: str, data: Any, *, event: str | None = None, retry: int | None = None, key: str | None = None
    ) -> str:
        """Publish an event to all clients of a channel, in every process that the broker reaches.

        From any thread, also outside a request; not from a signal handler. Clients that are away for a moment get it
        when they come back, as far as ``SSE_HISTORY`` and ``SSE_HISTORY_SECONDS`` go.

        :param data: a str goes as it is, anything else as JSON; or an :class:`Event` without an id.
        :param event: its name; None is ``"message"``. Not ``"gap"``, which tells clients that they have missed events.
        :param retry: milliseconds until clients reconnect from now on.
        :param key: makes a retry safe: a second event with the same one within 5 minutes is not published.
        :return: the event's id, ``<epoch>-<offset>``; with a key that was there before, that of the first one.
        :raises InvalidChannel: where this is no name of a channel.
        :raises InvalidEvent: where the event cannot be written, or is named ``gap``.
        :raises BrokerUnavailable: where the broker cannot be reached, or refuses; says whether the event may have been
            published.
        :raises NotInitialized: outside an app context, where there is not exactly one app.
        """
        return self._channels().publish(check_name(channel), data, event, retry, key)

    def publish_to(
        self, identity: str, data: Any, *, event: str | None = None, retry: int | None = None, key: str | None = None
    ) -> str:
        """Publish an event to one reader alone: to all streams of whoever the rule says is this identity.

        They ask for the channel ``~``, which is everyone's own: ``GET /events?channel=~``. It works as any other.

        :param identity: 1 to 500 characters, as the rule returns it.
        :raises TypeError: where the identity is no str.
        :raises ValueError: where it is none that can be used; else as for :meth:`publish`.
        """
        return self._channels().publish(private_name(identity), data, event, retry, key)

    def private(self, identity: str) -> Channel:
        """The channel of one reader alone, for views of your own, and to see whether anybody is there.

        Its streams are that reader's, so that :meth:`disconnect` ends them; ``subscribe(identity=...)`` says otherwise.

        :raises TypeError: where the identity is no str.
        :raises ValueError: where it is none that can be used.
        """
        return Channel(private_name(identity), self._channels, check_identity(identity))

    def authorizer(self, rule: _Rule) -> _Rule:
        """Have this decide who may read which channel, of those that are not public. Usable as a decorator.

        ::

            @sse.authorizer
            def may_read(channel: str) -> bool | str:
                return current_user.get_id() if current_user.is_authenticated else False

        It is called in the request, once for each channel, before anything is registered, and may block. It returns
        whether the channel may be read; or a str, which is a yes, and the identity of the reader; or an
        :class:`.Grant`. An empty str, or None, is a no. The channel ``~``, which is the reader's own, is asked
        for like any other; there it takes an identity. What it raises is a no, too, and logged;
        :class:`AccessDenied` can make it a 401.

        :raises RuntimeError: where there is another one already.
        """
        self._rules.set_authorizer(rule)
        return rule

    @overload
    def publisher(self, rule: _Rule) -> _Rule: ...

    @overload
    def publisher(self, *, cookies: bool = ...) -> Callable[[_Rule], _Rule]: ...

    def publisher(self, rule: Any = None, *, cookies: bool = False) -> Any:
        """Let clients publish with ``POST <prefix>/<channel>`` to the channels that this allows. Usable as a decorator.

        ::

            @sse.publisher
            def may_publish(channel: str) -> bool:
                sent = request.headers.get("Authorization", "")
                return secrets.compare_digest(sent.encode(), f"Bearer {TOKEN}".encode())

        The body is the data: ``application/json``, or ``text/plain``; ``event`` and ``key`` are in the query. The
        answer is a 201 with the event's ``id`` as JSON. A key holds for this channel and for the identity that the
        rule returns; your own keys are others. Events must not be named ``gap``, ``open`` or ``error``. The rule is
        called as an authorizer is.

        :param cookies: whether a request may go by cookies alone. Without, one that has cookies and no
            ``Authorization`` is denied, because a page of another site could have sent it. With, its ``Origin`` is all
            that tells.
        :raises RuntimeError: where there is another one already.
        """
        if rule is None:
            return partial(self.publisher, cookies=cookies)
        self._rules.set_publisher(rule, cookies)
        return rule

    def disconnect(self, identity: str | None = None, *, channel: str | None = None) -> None:
        """End the streams of this reader, of this channel, or of this reader that have this channel; in every process.

        What they have not been given yet, they do not get. Their clients come again, and the rule is asked: so first
        see to it that it says no, where it should. Called from within a rule, it does not mean who is just asking. Here
        they have ended when this returns; in other processes before anything reaches them that you publish afterwards,
        except in a cluster, where it takes a moment.

        :raises BrokerUnavailable: where other processes could not be told; call it again.
        """
        if identity is None and channel is None:
            raise TypeError("disconnect() takes an identity, a channel, or both, not None: is anybody logged in?")
        revoked = Revocation(
            None if identity is None else check_identity(identity), None if channel is None else check_name(channel)
        )
        self._state().revoke(revoked)

    def recheck(self, identity: str) -> None:
        """Ask the rule again about every stream of this reader, in every process, and end those that it denies.

        In the background, with each stream's own request as it was: its headers, its cookies, ``before_request``. So
        the rule should look at what can change, such as a database; a session that is all in its cookie says what it
        said before. Streams that views of yours began end, and their clients ask the view.

        :raises BrokerUnavailable: where other processes could not be told; call it again.
        """
        self._state().revoke(Revocation(check_identity(identity), None, is_recheck=True))

    @cached_property
    def blueprint(self) -> Blueprint:
        """The endpoints of channels: ``app.register_blueprint(sse.blueprint, url_prefix="/events")``.

        ``GET /events?channel=a&channel=b`` and ``GET /events/a`` are streams of channels that are public, or that
        :meth:`authorizer` opens to whoever asks; ``POST /events/a`` publishes, where :meth:`publisher` lets it.
        Channels of one stream share a connection, of which browsers open six to an origin; their names do not show in
        the events.
        """
        return make_blueprint(self._state, self._rules)

    @cached_property
    def monitor(self) -> Blueprint:
        """A page that shows what goes on: ``app.register_blueprint(sse.monitor, url_prefix="/sse-monitor")``.

        Clients and deliveries over time, channels, slow clients, ends by reason, processes and the broker; the events
        of one channel as they come, and a form that publishes to any. It is closed unless :meth:`monitor_access` opens
        it, or the app is in debug mode and asked from the machine that it runs on, at ``localhost``, ``127.0.0.1`` or
        ``[::1]``. Its own streams show in no figure, and count for no limit.
        """
        return make_monitor(self._state, self._monitor_access)

    def register(self, *_: object) -> NoReturn:
        # What app.register_blueprint(sse) calls: Flask-SSE's object is a blueprint itself.
        raise TypeError("register its blueprint: app.register_blueprint(sse.blueprint, url_prefix=...), or sse.monitor")

    def monitor_access(self, rule: _MonitorRule) -> _MonitorRule:
        """Have this decide who may see the :attr:`monitor`, and publish with it. Usable as a decorator.

        ::

            @sse.monitor_access
            def may_monitor() -> bool:
                return current_user.is_authenticated and current_user.is_admin

        It is called in each request of the page, without arguments, and returns True or False; an open page comes
        again, and is asked again, every 5 minutes. What it raises is a no, and logged; :class:`AccessDenied` can make
        it a 401. Where there is a rule, it decides in debug mode, too, and under every name of the host.

        :raises RuntimeError: where there is another one already.
        """
        self._monitor_access.set_rule(rule)
        return rule

    def stats(self) -> dict[str, Any]:
        """This process's figures, for people and monitors.

        ``clients`` (open streams), ``max_clients`` (so many there may be), ``outlets`` (who writes them: ``handed_off``
        or ``server``), ``declined`` (why not handed off: clients by reason), ``channels`` (clients by channel),
        ``opened``, ``closed`` (by close reason), ``refused`` (streams beyond a limit), ``refused_by`` (these, by the
        limit's name: a config key, ``max_clients`` of a channel, or ``RLIMIT_NOFILE``, the files that the process may
        open), ``denied`` (requests for channels that were), ``broker`` (its ``scheme``, and its ``state``: ``"ok"``, or
        ``"degraded"`` with the ``error``; ``troubles``: what fails for one channel alone, where anything does),
        ``draining``, ``warnings``.

        What clients are given: ``deliveries`` (events times clients, as far as they were written, or handed to the
        server to write), ``replayed`` (of these, from the history), ``bytes`` (of all bodies), ``gaps`` (clients that
        were told of one), ``dropped`` (events, by ``SSE_OVERFLOW``), ``pending`` (events that wait now), ``slow`` (the
        20 open streams with most pending or dropped: ``channels``, ``identity``, ``pending``, ``dropped``, ``outlet``,
        and for how many ``seconds`` they are open).

        What is published: ``published`` (events, by this process), ``publish`` (attempts: the ``count`` of those that
        the broker confirmed, the ``seconds`` that they took in all, and those that ``failed``), ``events`` (by channel:
        so many were told here since it has clients here).

        Whose figures these are: ``pid``, ``host``, ``version`` (of this package), ``since`` (the time when this process
        began). Counts are since then.
        """
        return self._state().stats()

    def processes(self) -> list[dict[str, Any]]:
        """The figures of all processes that share the broker: as far as they have, or had, a stream of a channel.

        As :meth:`stats` has them, without ``slow`` and ``events``, with ``id`` (which no two share) and ``age``: the
        others' are some seconds old at most. One that was killed is gone within 12 seconds, one that ended in order at
        once. May wait for the broker.

        :raises BrokerUnavailable: where it cannot be reached in ``SSE_PUBLISH_SECONDS``.
        """
        return self._state().processes()

    def shutdown(self) -> None:
        """End all streams of the app as a worker that stops does, and wait for that.

        What is pending is written first, then a ``retry:`` of random length, then a clean end. What takes none of it
        within ``SSE_DRAIN_SECONDS`` is cut; a second later at most this returns. New streams end at once from then on.
        The app can still publish; :meth:`close` also frees what that needs.
        """
        streams = self._state().streams
        drain(streams)
        await_drained(streams)

    def close(self) -> None:
        """End all streams as :meth:`shutdown` does, then free what the broker holds: its thread, its connections.

        For processes that make and drop apps, such as tests. It may wait a second more, and is idempotent. To publish,
        disconnect or recheck afterwards is a RuntimeError. An app that is dropped without it is freed by Python's
        garbage collector, once its streams are over.
        """
        self.shutdown()
        self._state().channels.close()

    def _channels(self) -> Channels:
        return self._state().channels

    def _state(self, app: Flask | None = None) -> State:
        if app is not None:
            state = app.extensions.get(EXTENSION)
            if isinstance(state, State) and state in self._states:
                return state
            raise NotInitialized(f"this SSE does not have {app!r}: call init_app(app) first")
        if has_app_context():
            here = current_app.extensions.get(EXTENSION)
            if isinstance(here, State) and here in self._states:
                return here
        if len(self._states) == 1:
            return self._states[0]
        if not self._states:
            raise NotInitialized("this SSE has no app: call init_app(app) first")
        raise NotInitialized(f"this SSE has {len(self._states)} apps: say which, with app.app_context()")


def state_of(sse: SSE, app: Flask | None = None) -> State:
    """Return what belongs to one app of an SSE: for metrics and test helpers.

    :param app: None is the current app, or the only one.
    :raises NotInitialized: where the SSE does not have the app; or, without one, where it is not clear which.
    """
    return sse._state(app)


def _end_failed(error: BaseException | None) -> None:
    """No client will ever get the emitters of a request that failed."""
    made = take_made_in_request()
    if error is not None:
        for emitter in made:
            emitter.complete_with_error(error)


def _respond_for(rv: Any) -> Any:
    """A view's result, with the response of an emitter in its place: bare, or the first of a tuple."""
    if isinstance(rv, Channel):
        raise TypeError(f"a view returns sse.channel({rv.name!r}).subscribe(), a stream of the channel, and not {rv!r}")
    if isinstance(rv, SseEmitters):
        raise TypeError("a view returns the emitter that it has added to the list, as add() does, and not the list")
    if isinstance(rv, SseEmitter):
        return rv.response()
    if isinstance(rv, tuple) and rv and isinstance(rv[0], SseEmitter):
        return (rv[0].response(), *rv[1:])
    return rv
