"""Apps that are closed or dropped leave nothing behind in their process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize("kind", ["threads", "gevent"])
def test_close_or_drop_of_many_apps_leaves_no_thread_or_connection(kind: str) -> None:
    with RedisServer() as server:
        command = [sys.executable, "-m", "tests.apps.closing_process", server.url, kind]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
    assert done.stdout == "all is freed\n", done.stderr
