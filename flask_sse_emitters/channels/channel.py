"""``Channel``: the public face of one channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

from ..broadcast.emitters import SseEmitters
from ..config.settings import UNSET, Settings
from ..streams.emitter import SseEmitter
from ..streams.registry.identity import Reader, check_identity
from ..types import Duration, EndForNow
from ..wire.event import Event
from .process_subscription import ProcessSubscription
from .registry import Channels
from .runs.run import Plan, Run


class Channel:
    """A name under which events are published, and which any number of clients reads: ``sse.channel("news")``.

    Every method may be called from any thread, also outside a request.
    """

    def __init__(self, name: str, channels: Callable[[], Channels], identity: object = UNSET) -> None:
        self.name: str = name
        self._channels = channels  # gives those of the current app
        self._identity = identity  # of its only reader, where it is private

    def publish(
        self,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        last: bool = False,
    ) -> str:
        """Publish an event to it, as :meth:`SSE.publish` does."""
        return self._channels().publish(self.name, data, event, retry, key, last=last)

    def complete(self, event: Any = None) -> str:
        """End the channel, in every process: each client gets all that was published before, and then its stream ends.

        It ends for good, and an ``EventSource`` does not come back. Who comes later gets what is kept, and the end; who
        has it all, a 204. A later publish begins the channel anew. May wait for the broker.

        :param event: is published before the end, in one step with it: an :class:`Event`, a builder's, or plain data.
        :return: the id of the event, or of the end. A channel that is complete already stays as it is.
        :raises BrokerUnavailable: where the broker cannot be reached, or refuses.
        """
        return self._channels().complete(self.name, event)

    @property
    def is_complete(self) -> bool:
        """Whether the channel has ended, and nothing has begun it anew. May wait for the broker.

        :raises BrokerUnavailable: where the broker cannot be reached.
        """
        return self._channels().broker.state(self.name).is_complete

    @property
    def is_running(self) -> bool:
        """Whether a run (:meth:`publish_from`) publishes to the channel, in whichever process. May wait for the broker.

        A channel that is neither running nor complete has nothing to resume: nobody knows of it (any more).

        :raises BrokerUnavailable: where the broker cannot be reached.
        """
        return self._channels().broker.state(self.name).has_run

    def position(self) -> str:
        """Return the id of the newest event, as :meth:`SSE.position` does."""
        return self._channels().position([self.name])

    @overload
    def subscribe(
        self,
        *,
        timeout: Duration | None = ...,
        last_event_id: str | None = ...,
        since: str | None = ...,
        bare: bool = ...,
        end: EndForNow | None = ...,
    ) -> SseEmitter: ...

    @overload
    def subscribe(
        self,
        *,
        timeout: Duration | None = ...,
        last_event_id: str | None = ...,
        since: str | None = ...,
        bare: bool = ...,
        end: EndForNow | None = ...,
        identity: str,
    ) -> SseEmitter: ...

    def subscribe(
        self,
        *,
        timeout: Duration | None = None,
        last_event_id: str | None = None,
        since: str | None = None,
        bare: bool = False,
        end: EndForNow | None = None,
        identity: object = UNSET,
    ) -> SseEmitter:
        """Open a new client's stream of this channel, for a view to return.

        The view decides who may read: no rule is asked.

        ::

            @app.get("/orders/stream")
            @login_required
            def stream():
                return sse.channel("orders").subscribe(identity=current_user.get_id())

        It begins after the event that the client received last, if it comes back, and else where ``since`` says. Where
        the channel is complete, and nothing is left for the client, the emitter has ended already, and the response is
        a 204, whatever status the view gives. May wait for the broker, to know that.

        :param timeout: the whole lifetime, seconds or a timedelta. None takes ``SSE_TIMEOUT``, spread by 10 %.
        :param last_event_id: None takes the ``Last-Event-ID`` of the request; ``""`` is none.
        :param since: where a client without an id begins: ``"now"``, ``"first"`` (all that is kept), ``"last"`` (the
            newest event), ``"last:20"``, ``"60s"`` (what was published in that time). It gets no ``gap`` for it. Of a
            complete channel it gets all that is kept. None takes that of :meth:`SSE.channel`, or of
            :meth:`SSE.channels`, and else ``"first"`` in a run (:meth:`publish_from`), and ``"now"`` otherwise.
        :param bare: as ``end``, of :class:`SseEmitter`; a bare stream begins at ``since`` each time, and tells no gap.
        :param identity: the reader of the stream, for :meth:`SSE.disconnect` and the limit of each identity; 1 to 500
            characters. Left out, it is unknown, but for a stream of :meth:`SSE.private`, which is that reader's.
        :raises TypeError: where the identity is not a str: None, say, because the user is not logged in.
        :raises ValueError: where ``since`` is none of these.
        """
        identity = self._identity if identity is UNSET else identity
        reader = None if identity is UNSET else Reader((check_identity(identity),), (self.name,))
        return self._channels().subscribe([self.name], timeout, last_event_id, reader, since=since, bare=bare, end=end)

    def publish_from(
        self,
        items: Iterable[Any],
        *,
        done: Any = None,
        on_error: Callable[[BaseException], Any] | None = None,
        every: Duration = 0.03,
    ) -> Run:
        """Publish what an iterable yields, on a thread of its own, whoever reads; then ``done``, and end the channel.

        ::

            @app.post("/ask")
            def ask():
                answer = sse.channel(f"answer/{uuid4()}")
                answer.publish_from(tokens(request.json), done="[DONE]")
                return answer.subscribe()

        The iterable runs in copies of the contexts of the app and of the request, which are torn down when it is done.
        May wait for the broker. Where it was away for longer than 10 seconds, the run has lost its channel.

        :param items: yields an :class:`Event` without an id, a builder's, or plain data. What it raises is logged.
        :param done: is published after the last of them.
        :param on_error: is called with what it raised, and returns what is published in place of ``done``. None is an
            event ``interrupted`` with the data ``{"reason": "error"}``.
        :param every: seconds, or a timedelta: what comes within so long is published in one step, each its own event.
        :raises RunExists: where another run publishes to the channel, in any process.
        :raises InvalidEvent: where ``done`` cannot be published.
        :raises BrokerUnavailable: where the broker cannot be reached.
        """
        if isinstance(items, str | bytes | Mapping | Event) or not isinstance(items, Iterable):
            raise TypeError(f"publish_from() takes an iterable of events or data, such as a generator, not {items!r}")
        return self._channels().start_run(self.name, items, Plan(done, on_error, every))

    def cancel(self) -> bool:
        """Cancel the run that publishes to the channel, in whichever process it is, and end the channel.

        Nothing more is published, not even ``done``. The iterable is closed at its next ``yield``, within a second.
        May wait for the broker.

        :return: False where there is no run.
        :raises BrokerUnavailable: where the broker cannot be reached.
        """
        return self._channels().cancel_run(self.name)

    @property
    def emitters(self) -> SseEmitters:
        """The list of its clients in this process.

        An event that you send to the list is not kept, reaches no other process, and passes over clients that are still
        catching up. An emitter that you add gets what is published once this process knows the channel: over Redis, a
        moment later.
        """
        return ChannelEmitters(self._channels().subscription(self.name))

    def subscribers(self) -> int:
        """Return how many clients read it, in all processes that share the broker.

        Those of other processes are counted as of a moment ago; those of a process that was killed for 12 seconds at
        most. May wait for the broker, within limits.

        :raises BrokerUnavailable: where the broker cannot be reached in ``SSE_PUBLISH_SECONDS``.
        """
        return len(self._channels().subscription(self.name).members) + self._channels().broker.clients_elsewhere(
            self.name
        )

    def members(self) -> list[str]:
        """Return the identities of who reads it, in all processes that share the broker: sorted, and each once.

        For a channel with ``members=True``. An identity is the one that the rule returns for this channel, or that
        :meth:`subscribe` is given; other readers are none. It is in here, and ``join`` tells it in the channel, from
        when its first stream begins until ``leave`` does: twice ``SSE_RETRY`` after its last stream has ended. So who
        reloads a page stays. Those of a process that was killed are gone within 15 seconds, or that time where it is
        longer. May be called anywhere, also where nobody asks a rule; may wait for the broker, within limits.

        :raises RuntimeError: where the channel has no members.
        :raises NotImplementedError: where the broker knows none.
        :raises BrokerUnavailable: where the broker cannot be reached in ``SSE_PUBLISH_SECONDS``.
        """
        return self._channels().roster.members(self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class ChannelEmitters(SseEmitters):
    """The list of a channel's clients, as :attr:`Channel.emitters` gives it."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: ProcessSubscription) -> None:
        self._delivery = self._subscription = subscription

    def _settings(self) -> Settings:
        return self._subscription.settings

    def _dumps(self, data: Any) -> str | bytes:
        return self._subscription.settings.dumps(data)
