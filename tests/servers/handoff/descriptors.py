"""The descriptors of a server's process, as the system shows them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.support.client import get
from tests.support.servers import Server


class ServersEnd:
    """The server's end of a client's connection.

    :param client: the client's end.
    """

    def __init__(self, server: Server, client: socket.socket) -> None:
        port = client.getsockname()[1]
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        self._links = [f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}")]
        self._process: int = get(server, "/process")["pid"]

    @property
    def is_open(self) -> bool:
        return self.is_open_in(self._process)

    def is_open_in(self, process: int) -> bool:
        return bool({*self._links} & {*_descriptors(process)})


def _descriptors(process: int) -> list[str]:
    found = []
    for entry in os.scandir(f"/proc/{process}/fd"):
        try:
            found.append(os.readlink(entry.path))
        except FileNotFoundError:  # it was closed meanwhile
            continue
    return found
