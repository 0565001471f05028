"""Connections to one Redis server that are kept at hand between commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

try:
    import hiredis
except ImportError:  # redis-py packs then
    hiredis = None  # type: ignore[assignment]


class KeptConnections:
    """Takes connections from a pool of redis-py, and keeps them. Any thread may call, and waits for Redis.

    What redis-py does for each command (take from the pool and give back, each under its lock; count, time, try again)
    takes more time than the command itself. Here the connection that was used last is at hand. It is looked at before
    it is used, as redis-py does: where Redis has closed it, nothing is sent on it.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: list[Any] = []  # the one that was used last is at the end; each call on it is one step

    def ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one go, and return the answer of each, or its :class:`redis.ResponseError`.

        :raises redis.RedisError: where Redis cannot be reached.
        """
        connection = self._take()
        try:
            connection.send_packed_command(_pack(connection, commands))
            return [_read(connection) for _ in commands]
        except BaseException:  # an answer may still come, which is none of the next command
            connection.disconnect()
            raise
        finally:
            self._idle.append(connection)

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._pool.release(self._idle.pop())
        self._pool.disconnect(inuse_connections=False)

    def _take(self) -> Any:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._pool.get_connection()
        if connection.is_quiet() and self._pool.owns_connection(connection):
            return connection
        self._pool.release(connection)
        return self._pool.get_connection()  # which connects it anew, perhaps to another master


def _pack(connection: Any, commands: Sequence[tuple[Any, ...]]) -> Any:
    if hiredis is None:
        return connection.pack_commands(commands)
    return [b"".join([hiredis.pack_command(command) for command in commands])]


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
