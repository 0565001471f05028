"""The Flask extension."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any, NoReturn, TypeVar

from flask import Blueprint, Flask

from .access.methods import AccessMethods
from .access.revocation import Revocation
from .access.rules import Rules
from .channels.channel import Channel
from .channels.names import check_name, private_name
from .channels.options import OptionTable, check_options
from .channels.registry import Channels
from .commits.methods import CommitMethods
from .config.app_json import dumps_of
from .config.context import EXTENSION, register_state
from .config.hints import config_hints
from .config.settings import UNSET, Settings, read_config
from .errors import InvalidChannel
from .server.app_state import State, find_state
from .server.denials import handle_denials
from .server.endpoints import make_blueprint
from .server.view_results import accept_emitters
from .streams.registry.draining import await_drained, drain
from .streams.registry.identity import check_identity
from .tools.cli import commands
from .tools.monitor import MonitorAccess, make_monitor
from .types import Duration, MonitorRule, Process, Stats

_MonitorRule = TypeVar("_MonitorRule", bound=MonitorRule)


class SSE(AccessMethods, CommitMethods):  # with more methods than other classes: it is the public face of the package
    """Server-Sent Events for Flask apps: ``sse = SSE(app)``.

    With an app factory, ``sse = SSE()`` and later ``sse.init_app(app)``. One ``SSE`` may serve several apps; methods
    then mean the current one. All but :meth:`init_app` may be called from any thread.

    The config keys, all of which begin with ``SSE_``, are on the page about :doc:`configuration <configuration>`.

    :param app: as for :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._states: list[State] = []
        # Returns the state of an app, or of the current one: for other modules of this package.
        self.find_state: partial[State] = partial(find_state, self._states)
        self._options = OptionTable()
        self._rules = Rules(self._options)
        self._monitor_access = MonitorAccess()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the config, let views return emitters, and add ``flask sse`` to the app's commands.

        Views can return emitters because this replaces ``app.make_response``. Keys that are probably a mistake, such as
        ``SSE_TIMOUT``, give a warning: in the log, and in :meth:`stats`.

        :raises TypeError: where this is not a Flask app.
        :raises ValueError: where a config key has an invalid value.
        :raises RuntimeError: where the app has an ``SSE`` already.
        """
        if not isinstance(app, Flask):
            raise TypeError(f"SSE() and init_app() take the Flask app, not {app!r}")
        if EXTENSION in app.extensions:
            raise RuntimeError("this app has an SSE already: import that one instead of calling init_app() again")
        given = dict(app.config)  # without the defaults, which read_config() adds
        settings = Settings(**read_config(app.config), dumps=dumps_of(app), app_context=app.app_context)
        app.extensions[EXTENSION] = state = State(app, settings, self._options, self._rules, config_hints(given))
        self._states.append(state)
        register_state(state)
        accept_emitters(app)
        handle_denials(app)
        if commands.name not in app.cli.commands:  # the app's own command of this name stays
            app.cli.add_command(commands)

    def channel(
        self,
        name: str,
        *,
        public: bool = UNSET,
        history: int | None = None,
        history_seconds: Duration | None = None,
        max_clients: int | None = None,
        since: str | None = None,
        members: bool = UNSET,
    ) -> Channel:
        """Return the channel of this name, which need not be created. Options that are given here hold for good.

        :param name: 1 to 200 ASCII letters, digits and ``. _ - : / @``.
        :param public: True lets anyone read it, and no rule is asked. False is the default if it is never given. Left
            out, it changes nothing.
        :param history: how many of its events are kept, from 0. None takes ``SSE_HISTORY``.
        :param history_seconds: for how long. None takes ``SSE_HISTORY_SECONDS``.
        :param max_clients: how many clients may read it in one process, from 1. None is any number.
        :param since: where a client without an id begins: see :meth:`Channel.subscribe`.
        :param members: True has it know who reads it: see :meth:`Channel.members`. Left out, it changes nothing.
        :raises InvalidChannel: where the name is invalid.
        :raises ValueError: names the parameter and the accepted values; or the earlier value that it contradicts.
        """
        name = check_name(name)
        options = check_options(
            public=public,
            history=history,
            history_seconds=history_seconds,
            max_clients=max_clients,
            since=since,
            members=members,
        )
        self._options.set(name, options)
        return Channel(name, self._channels)

    def channels(
        self,
        pattern: str,
        *,
        public: bool = UNSET,
        history: int | None = None,
        history_seconds: Duration | None = None,
        max_clients: int | None = None,
        since: str | None = None,
        members: bool = UNSET,
    ) -> None:
        """Set options of all channels whose names begin with the same characters: ``sse.channels("job/*", history=9)``.

        They hold for good. For each option the longest pattern that sets it wins, and :meth:`channel` wins over all.

        :param pattern: what the names begin with, and ``*``.
        :raises InvalidChannel: where the pattern is invalid; other parameters and errors are those of :meth:`channel`.
        """
        options = check_options(
            public=public,
            history=history,
            history_seconds=history_seconds,
            max_clients=max_clients,
            since=since,
            members=members,
        )
        self._options.set_for_all(pattern, options)

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
        """Publish an event to all clients of a channel, in every process that the broker reaches.

        Works in any thread, also outside a request, but not in a signal handler. May wait for the broker. Clients that
        are away get the event when they come back, within ``SSE_HISTORY`` and ``SSE_HISTORY_SECONDS``.

        :param data: a str is sent as it is, anything else as JSON; or an :class:`Event` without an id.
        :param event: its name; None is ``"message"``. Not ``"gap"`` or ``"~end"``, which tell clients something else.
        :param retry: milliseconds until clients reconnect from now on.
        :param key: makes a retry safe: a second event with the same key within 5 minutes is not published.
        :param last: ends the channel after it, in one step: see :meth:`Channel.complete`.
        :return: the event's id, ``<epoch>-<offset>``; for a repeated key, that of the first event.
        :raises InvalidChannel: where the name is invalid.
        :raises InvalidEvent: where the event cannot be encoded, or is named ``gap`` or ``~end``.
        :raises BrokerUnavailable: where the broker cannot be reached, or refuses; says whether the event may have been
            published.
        :raises NotInitialized: outside an app context, if there is not exactly one app.
        """
        return self._channels().publish(check_name(channel), data, event, retry, key, last=last)

    def publish_many(self, events: Iterable[tuple[str, Any]]) -> list[str]:
        """Publish several events in one step, which costs little more than one: ``[("orders", event), ("log", "x")]``.

        Those of one channel follow each other, and none of others comes between.

        :param events: for each the channel, and an :class:`Event` without an id, a builder's, or plain data.
        :return: the ids, in the order given.
        :raises PublishFailed: where some were not published, or may not have been: has the result of each.
        :raises InvalidChannel: where a name is invalid, and :class:`InvalidEvent` where an event is; then none was
            published.
        """
        return self._channels().publish_many(events)

    def position(self, *channels: str) -> str:
        """Return the id of the newest event of a channel, or of several as a stream of these has it.

        Read it before the state of your app: a stream that begins with it, as ``last_event_id``, has all that was
        published after, without a gap. Asks the broker, and may wait for it.

        :raises InvalidChannel: where a name is invalid, or there is none.
        :raises BrokerUnavailable: where the broker cannot be reached.
        """
        if not channels:
            raise InvalidChannel("position() takes the name of a channel, or of several, in the order of the stream")
        return self._channels().position([check_name(channel) for channel in channels])

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
        """Publish an event to one reader alone: to all streams for which the rule returns this identity.

        Their clients ask for the channel ``~``, each reader's own: ``GET /events?channel=~``. It works as any other.

        :param identity: 1 to 500 characters, as the rule returns it.
        :raises TypeError: where the identity is not a str.
        :raises ValueError: where the identity is invalid; other errors are those of :meth:`publish`.
        """
        return self._channels().publish(private_name(identity), data, event, retry, key, last=last)

    def private(self, identity: str) -> Channel:
        """Return the channel of one reader alone, for views of your own, and to see whether the reader is connected.

        Its streams have that identity, so that :meth:`disconnect` ends them, unless ``subscribe`` gets another one.

        :raises TypeError: where the identity is not a str.
        :raises ValueError: where the identity is invalid.
        """
        return Channel(private_name(identity), self._channels, check_identity(identity))

    @cached_property
    def blueprint(self) -> Blueprint:
        """The endpoints of channels: ``app.register_blueprint(sse.blueprint, url_prefix="/events")``.

        ``GET /events?channel=a&channel=b`` and ``GET /events/a`` are streams of channels that are public, or that the
        :meth:`authorizer` lets the client read; ``POST /events/a`` publishes, if the :meth:`publisher` rule allows it.
        ``GET /events/a/members`` tells who reads a channel with ``members=True``, to those who may read it.
        All channels of a stream share one connection; browsers open at most six to an origin. Events do not name their
        channel.
        """
        return make_blueprint(self.find_state, self._rules)

    @cached_property
    def monitor(self) -> Blueprint:
        """The monitor page: ``app.register_blueprint(sse.monitor, url_prefix="/sse-monitor")``.

        It shows clients and deliveries over time, channels, slow clients, ends by reason, processes and the broker; the
        events of one channel as they come; and a form that publishes to any. It is closed unless :meth:`monitor_access`
        opens it, or the app is in debug mode and the browser on the same machine, at ``localhost``, ``127.0.0.1`` or
        ``[::1]``. Its own streams appear in no figure and count towards no limit.
        """
        return make_monitor(self.find_state, self._monitor_access)

    def register(self, *_: object) -> NoReturn:
        """Say what to register: ``app.register_blueprint(sse)`` calls this, as Flask-SSE's object is a blueprint.

        :meta private:
        """
        raise TypeError("register its blueprint: app.register_blueprint(sse.blueprint, url_prefix=...), or sse.monitor")

    def monitor_access(self, rule: _MonitorRule) -> _MonitorRule:
        """Set the rule that decides who may see the :attr:`monitor`, and publish with it. Usable as a decorator.

        ::

            @sse.monitor_access
            def may_monitor() -> bool:
                return current_user.is_authenticated and current_user.is_admin

        It is called in each request of the page, without arguments, and returns True or False. An open page reconnects
        every 5 minutes, and the rule is asked again. An exception denies, and is logged; :class:`AccessDenied` can make
        that a 401. The rule also decides in debug mode, and under every name of the host.

        :raises RuntimeError: where another rule is set already.
        """
        self._monitor_access.set_rule(rule)
        return rule

    def stats(self) -> Stats:
        """Return the figures of this process, for people and monitors: see :class:`.Stats`. O(streams)."""
        return self.find_state().stats()

    def processes(self) -> list[Process]:
        """Return the figures of all processes that share the broker and have had a stream of a channel.

        See :class:`.Process`: as of :meth:`stats`, some seconds ago for others, and without single streams. A killed
        process disappears within 12 seconds, one that ended in order at once. May wait for the broker.

        :raises BrokerUnavailable: where the broker cannot be reached in ``SSE_PUBLISH_SECONDS``.
        """
        return self.find_state().processes()

    def shutdown(self) -> None:
        """End all streams of the app as a worker that stops does, and wait for that.

        Pending events are written first, then a ``retry:`` of random length, then a clean end. Streams that have not
        ended within ``SSE_DRAIN_SECONDS`` are cut; this returns at most a second later, or two where one was to finish.
        New streams end at once from then on. The app can still publish; :meth:`close` also releases the broker.
        """
        streams = self.find_state().streams
        drain(streams)
        await_drained(streams)

    def close(self) -> None:
        """End all streams as :meth:`shutdown` does, then release the broker: its thread and its connections.

        For processes that make and drop apps, such as tests. Idempotent; may wait a second more. To publish, disconnect
        or recheck afterwards is a RuntimeError. Python's garbage collector frees an app that is dropped without this,
        once its streams are over.
        """
        self.shutdown()
        self.find_state().channels.close()

    def _revoke(self, revocation: Revocation) -> None:
        self.find_state().revoke(revocation)

    def _destination(self) -> Channels:
        return self._channels()

    def _channels(self) -> Channels:
        return self.find_state().channels
