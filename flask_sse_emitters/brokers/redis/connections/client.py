"""What this package asks of Redis: scripts, one setting, and a connection to listen on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import redis
from redis.exceptions import NoScriptError, RedisClusterException

from ....runtime.gevent_loop import is_green, unpatched
from ....runtime.locks import native_lock
from ...remote.slots import FairSemaphore
from ...remote.trouble import before_sending
from ..scripts import Script
from ..scripts.processes import CHECK_FORMAT
from .data_format import FORMAT, NewerFormatError
from .deadline import READ_SECONDS, as_connection_error, cluster_errors, connect_to, seconds_left, within
from .kept import KeptConnections
from .url import Address

#: Seconds to begin listening: an attempt that hangs is given up, so that the next one comes soon.
BEGIN_SECONDS = 2.0

#: So many connections are open at most, beside the one that listens.
MAX_CONNECTIONS = 8


#: The keys and the arguments of a script.
Call: TypeAlias = tuple[Sequence[str], Sequence[Any]]


class Client:
    """Runs scripts, on a pool of connections. Any thread may call, and waits for Redis: see :func:`.within`.

    :param format_key: has the version of what lies there.
    :raises redis.RedisError: where a cluster cannot be reached; the others connect later.
    """

    def __init__(self, address: Address, format_key: str) -> None:
        self.is_cluster = address.kind == "cluster"  #: where one node may be away while others are not
        self._redis = connect_to(address)
        #: None in a cluster, where redis-py knows which node to ask.
        self._connections = None if self.is_cluster else KeptConnections(self._redis.connection_pool)
        self._slots = FairSemaphore(MAX_CONNECTIONS)
        self._slot = _Slot(self._slots, self._close_once_closed)
        self._format_key = format_key
        self._is_checked = False  # the version of what lies there
        self._is_closed = False

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Return the answer of the script.

        :raises redis.RedisError: where it fails, or Redis cannot be reached.
        """
        with self._slot:
            self._check_format()
            return self._run(script, keys, arguments)

    def run_all(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Return, for each of these keys and arguments, the answer of the script, or its error.

        :raises redis.RedisError: where Redis cannot be reached; in a cluster, none of the nodes that were asked.
        """
        with self._slot:
            self._check_format()
            return self._run_each(script, calls) if self._connections is None else self._run_together(script, calls)

    def is_durable(self) -> bool:
        """Ask whether Redis keeps all events that it confirmed when it is restarted. False where it does not say.

        :raises redis.RedisError: where Redis cannot be reached.
        """
        if self.is_cluster:  # one of its nodes would answer for all
            return False
        try:
            with self._slot:
                settings = self._redis.config_get("append*")
        except redis.ResponseError:  # it is forbidden, or unknown
            return False
        return bool(settings.get("appendonly") == "yes" and settings.get("appendfsync") == "always")

    @contextmanager
    def listening(self) -> Iterator[Any]:
        """Open a connection to listen on, of redis-py and with a ``fileno``, and close it afterwards."""
        with within(BEGIN_SECONDS), cluster_errors():
            node = self._redis
            if self.is_cluster:
                node = node.get_redis_connection(node.get_random_node())
            pool = node.connection_pool
            connection = pool.get_connection()
        self._is_checked = False  # it may be another server, or have been flushed
        try:
            yield connection
        finally:
            connection.disconnect()
            pool.release(connection)

    def is_current(self, connection: Any) -> bool:
        """Return whether a listening connection leads to where a new one would: sentinels may name another master.

        Never waits: it goes by what the sentinels answered when this client last had to connect.
        """
        return self.is_cluster or bool(self._redis.connection_pool.owns_connection(connection))

    def close(self) -> None:
        """Close the connections that are idle, and from now on each one after its use. Idempotent; any thread may call.

        One that is in use is left to its thread: closed under it, it raises errors that are none of redis-py's.
        """
        self._is_closed = True
        self._close_idle()

    def _close_once_closed(self) -> None:
        if self._is_closed:
            self._close_idle()

    def _close_idle(self) -> None:
        if self._connections is not None:
            self._connections.close_idle()
            return
        for node in self._redis.get_nodes():
            if node.redis_connection is not None:  # one that was never asked anything
                node.redis_connection.connection_pool.disconnect(inuse_connections=False)

    def _check_format(self) -> None:
        """Check, once for each connection to listen on, that this process understands what lies there.

        :raises NewerFormatError: where it does not.
        """
        if self._is_checked:
            return
        found: Any = 0
        try:
            with before_sending():
                found = self._run(CHECK_FORMAT, [self._format_key], [FORMAT])
        except redis.ResponseError:
            pass  # what is to be run then fails for the same reason, and says so better
        except (redis.RedisError, OSError):
            if not self.is_cluster:  # there, that may concern this one node
                raise
        if found > FORMAT:
            raise NewerFormatError(found)
        self._is_checked = True

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if self._connections is not None:
            [answer] = self._run_together(script, [(keys, arguments)])
            if isinstance(answer, Exception):
                raise answer
            return answer
        try:
            return self._redis.evalsha(script.digest, len(keys), *keys, *arguments)
        except NoScriptError:  # a new server
            return self._redis.eval(script.text, len(keys), *keys, *arguments)

    def _run_each(self, script: Script, calls: Sequence[Call]) -> list[Any]:
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

    def _run_together(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        assert self._connections is not None
        commands = [("EVALSHA", script.digest, len(keys), *keys, *arguments) for keys, arguments in calls]
        answers = self._connections.ask(commands)
        unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # to a new server; only these: the others have run
            again = [("EVAL", script.text, *commands[index][2:]) for index in unknown]
            for index, answer in zip(unknown, self._connections.ask(again), strict=True):
                answers[index] = answer
        return answers


class _Slot:
    """Holds one of the slots in a ``with`` block, until the deadline at most."""

    __slots__ = ("_on_release", "_slots")

    def __init__(self, slots: FairSemaphore, on_release: Callable[[], object]) -> None:
        self._slots = slots
        self._on_release = on_release

    def __enter__(self) -> None:
        self._slots.acquire(seconds_left() or READ_SECONDS)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._slots.release()
        self._on_release()
        if isinstance(error, RedisClusterException):
            raise as_connection_error(error) from error


class Clients:
    """The client of each thread: one for all, or where threads are greenlets one for each thread of the system.

    Any thread may call.
    """

    def __init__(self, address: Address, format_key: str) -> None:
        self._address = address
        self._format_key = format_key
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
                client = self._local.client = Client(self._address, self._format_key)
            return client
        if self._shared is None:
            new = Client(self._address, self._format_key)  # of a cluster, that takes a while
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
