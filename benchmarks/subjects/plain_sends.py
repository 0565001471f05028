"""A loop of ``socket.send`` in Python, on threads."""

from __future__ import annotations

import sys

from ..processes import Program
from .server import Server, Subject


class PlainSends(Subject):
    def launch(self, server: Server) -> None:
        command = [sys.executable, "-m", "benchmarks.apps.plain_sends", str(server.port)]
        server.add(Program(command, server.folder))
