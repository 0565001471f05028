"""``flask sse check`` as a process that is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.support.servers import ROOT
from tests.support.tiny_server import Request, TinyServer
from tests.support.waiting import PATIENCE, until


def test_check_interrupt_exits_with_130_and_no_traceback() -> None:
    def silent(request: Request) -> Iterator[bytes]:
        yield request.hold()

    with TinyServer(silent) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "tests.apps.cli", "sse", "check", server.url],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: server.requests, "its request")
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
    assert (process.returncode, out) == (130, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith("- connecting to ")
