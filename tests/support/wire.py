"""A connection to a server that the test can cut or hold."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

_RESET = struct.pack("ii", 1, 0)


class Wire:
    """A proxy from a port of its own to another one, in a ``with`` block."""

    port: int

    def __init__(self, port: int) -> None:
        self._to = port
        self.is_held = False  #: no data pass
        self.is_closed = False  #: new connections are reset at once
        self.connections = 0  #: number of connections so far
        self._ends: set[asyncio.StreamWriter] = set()
        self._has_started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        """The URL of a Redis at the other end."""
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> Wire:
        self._thread.start()
        self._has_started.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()

    def cut(self) -> None:
        """Reset all connections."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    async def _serve(self) -> None:
        self._loop, self._is_over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._has_started.set()
        await self._is_over.wait()
        server.close()
        self.is_held, self.is_closed = False, True
        await self._cut()
        # Python 3.11 logs an error for each connection whose task is cancelled, as the end of the loop does.
        if connections := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(connections)

    async def _cut(self) -> None:
        self._reset(self._ends)
        await asyncio.sleep(0)  # closes them

    def _reset(self, ends: set[asyncio.StreamWriter]) -> None:
        for end in ends:
            with suppress(OSError):  # its transport has closed the socket, after a write that failed
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()
        self._ends = self._ends - ends

    async def _connect(self, reader: asyncio.StreamReader, here: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = {here}
        self._ends |= ends
        with suppress(OSError):
            if not self.is_closed:
                answers, there = await asyncio.open_connection("127.0.0.1", self._to)
                ends.add(there)
                self._ends |= ends
                ways = [asyncio.create_task(self._pass(*way)) for way in ((reader, there), (answers, here))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self._reset(ends & self._ends)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                while self.is_held:
                    await asyncio.sleep(0.005)
                writer.write(data)
                await writer.drain()
