"""The limit: a loop of non-blocking sends in C."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..processes import Program, compiled
from .server import Server, Subject

_SOURCE = Path(__file__).parent.parent / "bare.c"


class Bare(Subject):
    def missing(self) -> str | None:
        return None if shutil.which("cc") else "no C compiler: cc"

    def launch(self, server: Server) -> None:
        server.add(Program([str(compiled(_SOURCE, server.folder)), str(server.port)], server.folder))
