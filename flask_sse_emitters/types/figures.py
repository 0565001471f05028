"""The figures of processes, as :meth:`.SSE.stats` and :meth:`.SSE.processes` return them.

Without postponed annotations: with them, Python itself would not know which keys are required.
"""

from typing import Literal, NotRequired, Required, TypeAlias, TypedDict

#: Who writes to a client: this package, or the server.
Outlet: TypeAlias = Literal["handed_off", "server"]

#: Whether the broker can be reached.
BrokerState: TypeAlias = Literal["ok", "degraded"]


class Outlets(TypedDict):
    """Clients by who writes to them."""

    handed_off: int  #: this package, which needs neither a thread nor a greenlet for it
    server: int  #: the server, with one for each


class ServerFigures(TypedDict):
    """What serves the app."""

    name: str | None  #: None before the first stream
    threads: int | None  #: for requests; None where that is unknown, or there is no limit
    declined: str | None  #: why the last stream that was not handed off was not


class PublishFigures(TypedDict):
    """Attempts of this process to publish."""

    count: int  #: those that the broker confirmed
    seconds: float  #: what these took in all
    failed: int  #: those that failed


class BrokerStatus(TypedDict):
    """The state of the broker, as :meth:`.Broker.status` returns it."""

    state: BrokerState  #: ``"degraded"`` while it cannot be reached, or refuses
    error: NotRequired[str]  #: why it is degraded
    seconds: NotRequired[float]  #: for how long it has been degraded
    url: NotRequired[str]  #: without a password
    troubles: NotRequired[list[str]]  #: failures of single channels


class BrokerFigures(BrokerStatus):
    """The broker in :class:`Stats`."""

    scheme: str  #: of ``SSE_BROKER_URL``


_MovedIn = TypedDict("_MovedIn", {"in": int})


class MovedFigures(_MovedIn):
    """Streams that moved from other workers to this one (``in``), and to others (``out``)."""

    out: int
    refused: dict[str, int]  #: those that should have moved, and did not, by the reason


class SlowStream(TypedDict):
    """A stream whose client is behind."""

    channels: list[str]
    identity: str | None  #: of its reader, where that is known
    pending: int  #: events that wait for it
    dropped: int  #: events that it will not get
    outlet: Outlet
    seconds: float  #: its age


class Figures(TypedDict):
    """The figures that a process reports to others: in :class:`Stats`, and in :class:`Process` as far as it has.

    ``bytes`` are those of all bodies.
    """

    pid: int
    host: str
    since: float  #: when the process began, and counts with it, in seconds since 1970
    version: str  #: of this package
    clients: int  #: open streams
    max_clients: int  #: so many there may be: ``SSE_MAX_CLIENTS``, or fewer with too few files
    outlets: Outlets
    declined: dict[str, int]  #: clients that were not handed off, by the reason
    server: ServerFigures
    opened: int  #: streams that began
    closed: dict[str, int]  #: streams that ended, by the value of their :class:`.CloseReason`
    refused: int  #: streams beyond a limit
    refused_by: dict[str, int]
    """These by the limit: a config key, ``max_clients`` of a channel, or ``RLIMIT_NOFILE``, the files that the process
    may open."""
    moved: MovedFigures
    denied: int  #: requests for channels that a rule, or their origin, forbade
    deliveries: int  #: events times clients, as far as they were written, or given to the server to write
    replayed: int  #: of these, the ones that came from the history
    bytes: int
    gaps: int  #: clients that were told of a gap
    dropped: int  #: events that ``SSE_OVERFLOW`` has dropped
    pending: int  #: events that wait for clients
    published: int  #: events that this process has published
    publish: PublishFigures
    broker: BrokerFigures
    draining: bool  #: whether the process stops, and ends its streams
    warnings: list[str]  #: settings that should be changed


class Stats(Figures):
    """What :meth:`.SSE.stats` returns."""

    channels: dict[str, int]  #: clients of each channel that has any here
    events: dict[str, int]  #: events of each channel that were received here since it has had clients here
    slow: list[SlowStream]  #: the 20 open streams with most pending or dropped events


class Process(TypedDict, total=False):
    """One of what :meth:`.SSE.processes` returns. The keys are those of :class:`Figures`, and three more.

    All have these three. Of the others a process may lack any: one that only listens, as ``flask sse listen`` does, has
    no figures, and one with another version of this package has those of that version.
    """

    id: Required[str]  #: no two processes have the same one
    age: Required[float]  #: of these figures, in seconds
    channels: Required[dict[str, int]]  #: clients of each channel that has any there
    pid: int
    host: str
    since: float
    version: str
    clients: int
    max_clients: int
    outlets: Outlets
    declined: dict[str, int]
    server: ServerFigures
    opened: int
    closed: dict[str, int]
    refused: int
    refused_by: dict[str, int]
    moved: MovedFigures
    denied: int
    deliveries: int
    replayed: int
    bytes: int
    gaps: int
    dropped: int
    pending: int
    published: int
    publish: PublishFigures
    broker: BrokerFigures
    draining: bool
    warnings: list[str]
