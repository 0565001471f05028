"""The way to a Redis, or to several: what redis-py does, within a time that is counted once for all of it.

redis-py bounds each read, and each attempt to connect. To publish takes several of them, and whoever publishes waits
for their sum; so each of them here may take what is left. Nothing is tried again: the first attempt may have been
carried out, and an event would be published twice.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import NoScriptError, RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ...runtime.gevent_loop import is_green, unpatched
from ...runtime.locks import native_lock
from .errors import before_sending
from .url import Address

#: Seconds that one read may take, and one attempt to connect, where nobody counts them.
READ_SECONDS, CONNECT_SECONDS = 5.0, 1.0

#: Seconds to begin listening: an attempt that hangs is given up, so that the next one comes soon.
BEGIN_SECONDS = 2.0

#: So many connections are open at most, beside the one that listens.
CONNECTIONS = 8

#: Seconds that one of several sentinels may take.
SENTINEL_SECONDS = 0.5

_ends: ContextVar[float | None] = ContextVar("flask_sse_emitters.redis_ends", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All that is done here together may take so long."""
    token = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(token)


def _left() -> float | None:
    end = _ends.get()
    return None if end is None else max(0.001, end - time.monotonic())


class Client:
    """A pool of connections.

    :raises redis.RedisError: where a cluster cannot be reached; the others connect later.
    """

    def __init__(self, address: Address) -> None:
        # Protocol 2: what is announced comes as plain answers, in every version of redis-py.
        options: dict[str, Any] = {
            "socket_timeout": READ_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            **address.options,
            "protocol": 2,
            "decode_responses": False,
        }
        self.is_cluster = address.kind == "cluster"  #: where one node may be away, and others are not
        with before_sending(), _cluster_errors():
            self._redis: Any = _CLIENTS[address.kind](address, options)
        self._turns = _Turns(CONNECTIONS)
        self._is_closed = False

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What the script gives.

        :raises redis.RedisError: where it fails, or Redis cannot be reached.
        """
        with self._one():
            return self._run(script, keys, arguments)

    def run_all(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """What the script gives for each of these keys and arguments, or its error.

        :raises redis.RedisError: where Redis cannot be reached; in a cluster, none of the nodes that were asked.
        """
        with self._one():
            return self._run_each(script, calls) if self.is_cluster else self._run_together(script, calls)

    def is_durable(self) -> bool:
        """Ask whether Redis has all events that it confirmed when it is started again. False where it does not say.

        :raises redis.RedisError: where Redis cannot be reached.
        """
        if self.is_cluster:  # one of its nodes would answer for all
            return False
        try:
            with self._one():
                settings = self._redis.config_get("append*")
        except redis.ResponseError:  # it is forbidden, or unknown
            return False
        return bool(settings.get("appendonly") == "yes" and settings.get("appendfsync") == "always")

    @contextmanager
    def listening(self) -> Iterator[Any]:
        """A connection of its own, of redis-py, that is closed afterwards."""
        with within(BEGIN_SECONDS), _cluster_errors():
            node = self._redis
            if self.is_cluster:
                node = node.get_redis_connection(node.get_random_node())
            pool = node.connection_pool
            connection = pool.get_connection()
        try:
            yield connection
        finally:
            connection.disconnect()
            pool.release(connection)

    def is_current(self, connection: Any) -> bool:
        """Whether a listening connection leads to where a new one would: sentinels may have named another master since.

        Never waits: it goes by what this client was told when it last had to connect.
        """
        return self.is_cluster or bool(self._redis.connection_pool.owns_connection(connection))

    def close(self) -> None:
        """Close the connections that are idle, and from now on each one after its use. Idempotent; any thread may call.

        One that is in use is left to its thread: closed under it, it raises errors that are none of redis-py's.
        """
        self._is_closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        clients = [node.redis_connection for node in self._redis.get_nodes()] if self.is_cluster else [self._redis]
        for client in clients:
            if client is not None:  # a node that was never asked anything
                client.connection_pool.disconnect(inuse_connections=False)

    @contextmanager
    def _one(self) -> Iterator[None]:
        """Take a turn."""
        try:
            with self._turns.one(), _cluster_errors():
                yield
        finally:
            if self._is_closed:
                self._close_idle()

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return self._redis.evalsha(script.digest, len(keys), *keys, *arguments)
        except NoScriptError:  # a new server
            return self._redis.eval(script.text, len(keys), *keys, *arguments)

    def _run_each(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """redis-py has no scripts in a cluster's pipelines. A node that cannot be reached is asked once."""
        answers: list[Any] = []
        away: dict[str, Exception] = {}
        for keys, arguments in calls:
            node = self._redis.get_node_from_key(keys[0]).name
            answer: Any = away.get(node)
            if answer is None:
                try:
                    answer = self._run(script, keys, arguments)
                except redis.ResponseError as error:
                    answer = error
                except (redis.RedisError, OSError) as error:
                    answer = away[node] = error
            answers.append(answer)
        if away and all(
            isinstance(answer, Exception) and not isinstance(answer, redis.ResponseError) for answer in answers
        ):
            raise answers[0]
        return answers

    def _run_together(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        answers = self._pipe(script, calls)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._redis.script_load(script.text)
            answers = self._pipe(script, calls)
        return answers

    def _pipe(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers


class Clients:
    """Gives a client to each thread: one for all, or where threads are greenlets one for each thread of the system.

    Any thread may call.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = native_lock()
        self._local = unpatched("_thread", "_local")()  # gevent's sockets belong to the event loop of one system thread
        self._shared: Client | None = None

    def get(self) -> Client:
        """Return the client of this thread.

        :raises redis.RedisError: see :class:`Client`.
        """
        if is_green():
            client: Client | None = getattr(self._local, "client", None)
            if client is None:
                client = self._local.client = Client(self._address)
            return client
        if self._shared is None:
            new = Client(self._address)  # of a cluster, that takes a while
            with self._lock:
                first, self._shared = self._shared is None, self._shared or new
            if not first:
                new.close()
        return self._shared

    def close(self) -> None:
        """Close the connections that this thread can close: where threads are greenlets, its own. Idempotent."""
        client = getattr(self._local, "client", None) if is_green() else self._shared
        if client is not None:
            client.close()


class _Turns:
    """So many at a time, and the others in the order in which they came: a lock may let the same ones pass for ever."""

    def __init__(self, count: int) -> None:
        self._lock = native_lock()
        self._free = count
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def one(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._pass_on()

    def _take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            if turn.wait(_left() or READ_SECONDS):
                return
            with before_sending():
                raise redis.TimeoutError(f"all {CONNECTIONS} connections are busy")
        except BaseException:  # also of somebody who stops waiting
            with self._lock:
                had_it = turn not in self._waiting
                if not had_it:
                    self._waiting.remove(turn)
            if had_it:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            turn = self._waiting.popleft()
        turn.set()


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """redis-py's errors of a cluster as a whole are none of its others."""
    try:
        yield
    except RedisClusterException as error:
        raise redis.ConnectionError(str(error)) from error


class Script:
    """A step that nothing comes between."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _single(_address: Address, options: dict[str, Any]) -> Any:
    return redis.Redis.from_pool(_Pool(**options, retry=_once()))


def _sentinel(address: Address, options: dict[str, Any]) -> Any:
    kind = options.pop("connection_class")
    own = {key: options.pop(f"sentinel_{key}") for key in ("username", "password") if f"sentinel_{key}" in options}
    for name in ("host", "port"):
        options.pop(name, None)
    if issubclass(kind, redis.SSLConnection):
        options["ssl"] = True
    own |= {key: value for key, value in options.items() if key.startswith(("socket_", "ssl"))}
    own |= {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS, "retry": _once()}
    sentinel: Any = Sentinel(address.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    for each in sentinel.sentinels:
        each.connection_pool.connection_class = _hurried(each.connection_pool.connection_class)
    return sentinel.master_for(address.service, connection_pool_class=_SentinelPool, **options, retry=_once())


def _cluster(address: Address, options: dict[str, Any]) -> Any:
    nodes: list[Any] = [ClusterNode(*host) for host in address.hosts]  # type: ignore[no-untyped-call]
    scheme = "rediss" if issubclass(options.pop("connection_class"), redis.SSLConnection) else "redis"
    for name in ("host", "port", "db"):
        options.pop(name, None)
    url = f"{scheme}://{nodes[0].host}:{nodes[0].port}"
    return redis.RedisCluster(url=url, startup_nodes=nodes, connection_pool_class=_Pool, retry=_once(), **options)


_CLIENTS = {"single": _single, "sentinel": _sentinel, "cluster": _cluster}


def _once() -> Retry:
    return Retry(NoBackoff(), 0)


@cache
def _hurried(kind: Any) -> type:
    """A kind of connection whose every step takes no longer than what is left."""

    class Hurried(kind):  # type: ignore[misc]
        socket_connect_timeout: Any
        socket_timeout: Any

        def connect(self, *args: Any, **options: Any) -> Any:
            with before_sending():
                return super().connect(*args, **options)

        def _connect(self) -> Any:
            left = _left()
            if left is None:
                return super()._connect()
            # A name may stand for several addresses, which are tried one after the other. TLS shakes hands in here.
            own = self.socket_connect_timeout, self.socket_timeout
            self.socket_connect_timeout, self.socket_timeout = min(own[0], left / 2), min(own[1], left / 2)
            try:
                return super()._connect()
            finally:
                self.socket_connect_timeout, self.socket_timeout = own

        def send_packed_command(self, *args: Any, **options: Any) -> Any:
            self._hurry()
            return super().send_packed_command(*args, **options)

        def read_response(self, *args: Any, **options: Any) -> Any:
            self._hurry()
            return super().read_response(*args, **options)

        def _hurry(self) -> None:
            left = _left()
            if self._sock and (left is not None or self._hurries):
                self._sock.settimeout(self.socket_timeout if left is None else min(self.socket_timeout, left))
                self._hurries = left is not None

        _hurries = False

    Hurried.__name__ = Hurried.__qualname__ = f"Hurried{kind.__name__}"
    return Hurried


class _Pool(redis.ConnectionPool):
    def __init__(self, connection_class: type = redis.Connection, **options: Any) -> None:
        super().__init__(_hurried(connection_class), **options)


class _SentinelPool(SentinelConnectionPool):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self.connection_class = _hurried(self.connection_class)
