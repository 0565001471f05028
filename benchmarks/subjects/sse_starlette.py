"""sse-starlette on uvicorn, with uvloop and httptools."""

from __future__ import annotations

import sys

from ..processes import Program
from .server import Server, Subject


class SseStarlette(Subject):
    packages = ("sse_starlette", "uvicorn", "uvloop", "httptools")
    most_clients = 1_000

    def launch(self, server: Server) -> None:
        app = "benchmarks.apps.sse_starlette_app:app"
        options = ["--loop", "uvloop", "--http", "httptools", "--backlog", "4096", "--log-level", "warning"]
        address = ["--host", "127.0.0.1", "--port", str(server.port), "--no-access-log"]
        server.add(Program([sys.executable, "-m", "uvicorn", *options, *address, app], server.folder))
