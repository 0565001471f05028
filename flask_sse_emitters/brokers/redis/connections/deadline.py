"""Connections to Redis: redis-py's own, kept within a deadline that counts once for all that a caller does.

redis-py bounds each read, and each attempt to connect. A publish takes several of them, and its caller waits for their
sum; so each of them here may take no longer than what is left. Nothing is tried again: the first attempt may have been
carried out, and an event would be published twice.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import new_class
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ....runtime.fork import reset_after_fork
from ....runtime.gevent_loop import unpatched
from ....runtime.socket_monitor import replace_with_dead_fd
from ...remote.deadline import seconds_left as seconds_left
from ...remote.deadline import within as within
from ...remote.trouble import before_sending
from .url import Address

#: Seconds that one read may take, and one attempt to connect, where there is no deadline.
READ_SECONDS, CONNECT_SECONDS = 5.0, 1.0

#: A timeout is not set anew for a difference of so many seconds: the system would be called for each step.
EXACT_SECONDS = 0.01

#: The system's own: that of gevent would let others run.
new_poll = unpatched("select", "poll")

#: Seconds that one of several sentinels may take.
SENTINEL_SECONDS = 0.5


def connect_to(address: Address) -> Any:
    """Return a client of redis-py. One server, or sentinels, are connected to later, with the first command.

    :raises redis.RedisError: where a cluster cannot be reached.
    """
    # Protocol 2: announcements come as plain answers, in every version of redis-py.
    options: dict[str, Any] = {
        "socket_timeout": READ_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        **address.options,
        "protocol": 2,
        "decode_responses": False,
    }
    with before_sending(), cluster_errors():
        return _FACTORIES[address.kind](address, options)


@contextmanager
def cluster_errors() -> Iterator[None]:
    """Raise redis-py's errors of a cluster as a whole, which it derives from none of its others, as ConnectionError."""
    try:
        yield
    except RedisClusterException as error:
        raise as_connection_error(error) from error


def as_connection_error(error: RedisClusterException) -> redis.ConnectionError:
    """Return what :func:`cluster_errors` raises for an error."""
    return redis.ConnectionError(str(error))


_Connection: Any = object  # stands for the class of redis-py's that this one is mixed into


class DeadlineConnection(_Connection):  # type: ignore[misc]
    """A connection of redis-py each of whose steps ends at the deadline.

    redis-py has no public way to two things that this needs, so this class alone uses its private names: ``_connect``,
    because a timeout for connecting must not stay when the connection is made; and ``_sock``, the socket, because a
    timeout must be set for each step, and because a selector waits for it.
    """

    pid: int
    socket_connect_timeout: Any
    socket_timeout: Any
    _is_limited = False  # the socket's timeout is not the connection's own
    _poll: select.poll
    _polled = -1  # the descriptor that this polls

    def connect(self, *args: Any, **options: Any) -> Any:
        """Connect, and mark errors as raised before any command was sent."""
        reset_after_fork(self._let_go)
        with before_sending():
            return super().connect(*args, **options)

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        """Send a command by the deadline."""
        self._limit_next_step()
        return super().send_packed_command(*args, **options)

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read an answer by the deadline."""
        self._limit_next_step()
        return super().read_response(*args, **options)

    def is_quiet(self) -> bool:
        """Return whether it is connected, and nothing has come on it: no end, either. Never waits."""
        if (descriptor := self.fileno()) < 0:
            return False
        if descriptor != self._polled:
            self._poll, self._polled = new_poll(), descriptor
            self._poll.register(descriptor, select.POLLIN)
        return not self._poll.poll(0)

    def fileno(self) -> int:
        """Return the descriptor of the socket; -1 where it is not connected."""
        return self._sock.fileno() if self._sock else -1

    def raw_descriptor(self) -> int:
        """Return the descriptor from which the bytes of Redis can be read, without waiting; -1 where there is none.

        So it is where they are encrypted, and where a URL says that sockets wait without end.
        """
        descriptor = self.fileno()
        is_raw = descriptor >= 0 and not hasattr(self._sock, "pending") and not os.get_blocking(descriptor)
        return descriptor if is_raw else -1

    def _connect(self) -> Any:
        left = seconds_left()
        if left is None:
            return super()._connect()
        # A name may stand for several addresses, which are tried one after the other. TLS shakes hands in here.
        own = self.socket_connect_timeout, self.socket_timeout
        self.socket_connect_timeout, self.socket_timeout = min(own[0], left / 2), min(own[1], left / 2)
        try:
            return super()._connect()
        finally:
            self.socket_connect_timeout, self.socket_timeout = own

    def _let_go(self) -> None:
        """Let go of the parent's socket in a forked child, where gevent may go on with a greenlet that waits for it.

        That would take an answer for which the parent waits.
        """
        if (descriptor := self.fileno()) >= 0:
            replace_with_dead_fd(descriptor)

    def _limit_next_step(self) -> None:
        if self.pid != os.getpid():  # it was being made at the fork
            raise redis.ConnectionError("this connection is that of the parent process")
        left = seconds_left()
        if self._sock and (left is not None or self._is_limited):
            seconds = self.socket_timeout if left is None else min(self.socket_timeout, left)
            if abs((self._sock.gettimeout() or 0.0) - seconds) > EXACT_SECONDS:
                self._sock.settimeout(seconds)
            self._is_limited = left is not None


@cache
def with_deadline(kind: type) -> type:
    """Return a class of connections of this kind that keep to the deadline: see :class:`DeadlineConnection`."""
    return new_class(f"Deadline{kind.__name__}", (DeadlineConnection, kind))


class _Pool(redis.ConnectionPool):
    def __init__(self, connection_class: type = redis.Connection, **options: Any) -> None:
        super().__init__(with_deadline(connection_class), **options)


class _SentinelPool(SentinelConnectionPool):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self.connection_class = with_deadline(self.connection_class)


def _single(_address: Address, options: dict[str, Any]) -> Any:
    return redis.Redis.from_pool(_Pool(**options, retry=_never()))


def _sentinel(address: Address, options: dict[str, Any]) -> Any:
    kind = options.pop("connection_class")
    own = {key: options.pop(f"sentinel_{key}") for key in ("username", "password") if f"sentinel_{key}" in options}
    for name in ("host", "port"):
        options.pop(name, None)
    if issubclass(kind, redis.SSLConnection):
        options["ssl"] = True
    own |= {key: value for key, value in options.items() if key.startswith(("socket_", "ssl"))}
    own |= {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS, "retry": _never()}
    sentinel: Any = Sentinel(address.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    for each in sentinel.sentinels:
        each.connection_pool.connection_class = with_deadline(each.connection_pool.connection_class)
    return sentinel.master_for(address.service, connection_pool_class=_SentinelPool, **options, retry=_never())


def _cluster(address: Address, options: dict[str, Any]) -> Any:
    nodes: list[Any] = [ClusterNode(*host) for host in address.hosts]  # type: ignore[no-untyped-call]
    scheme = "rediss" if issubclass(options.pop("connection_class"), redis.SSLConnection) else "redis"
    for name in ("host", "port", "db"):
        options.pop(name, None)
    url = f"{scheme}://{nodes[0].host}:{nodes[0].port}"
    return redis.RedisCluster(url=url, startup_nodes=nodes, connection_pool_class=_Pool, retry=_never(), **options)


_FACTORIES = {"single": _single, "sentinel": _sentinel, "cluster": _cluster}


def _never() -> Retry:
    return Retry(NoBackoff(), 0)
