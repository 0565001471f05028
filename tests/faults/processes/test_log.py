"""A log that cannot be written, or is not read: no stream ends, and no event is lost."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.processes.process_servers import await_heartbeats, config, serving, worker_of
from tests.support.client import connected, get, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until


def redirected(kind: str, redirection: str, **options: Any) -> Server:
    """Return a server with stdout and stderr redirected by a shell, in its notation."""
    return serving(kind, before=["sh", "-c", f'exec "$@" {redirection}', "sh"], **options)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A pipe in the file system, which holds a page, and its end for reading."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    yield path, end
    with suppress(OSError):
        os.close(end)


@pytest.mark.parametrize(("kind", "log"), [("gthread", "full"), ("gevent", "closed"), ("gevent", "abandoned")])
def test_log_that_cannot_be_written_stops_nothing(kind: str, log: str, pipe: tuple[str, int]) -> None:
    path, end = pipe
    redirection = {"full": ">/dev/full 2>&1", "closed": ">&- 2>&-", "abandoned": f">{path} 2>&1"}[log]
    with redirected(kind, redirection, env=config(SSE_HEARTBEAT=0.2)) as server:
        with connected(server, "/events/a") as client, connected(server, "/connect") as other:
            if log == "abandoned":
                os.close(end)
            assert post(server, "/log?lines=100") == {"called": True}
            post(server, "/publish/a", "x")
            post(server, "/send", "y")
            assert (client.texts(1), other.texts(1)) == (["x"], ["y"])
            await_heartbeats(client)
        until(lambda: get(server, "/stats")["closed"] == {"disconnected": 2}, "their ends")


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_log_that_is_not_read_blocks_its_writer_and_loses_no_event(kind: str, pipe: tuple[str, int]) -> None:
    """Under gevent it blocks the whole worker, as all that blocks does; all goes on when the log is read."""
    path, _ = pipe
    with (
        ExitStack() as reader,  # which ends with the server
        redirected(kind, f">{path} 2>&1", env=config(SSE_HEARTBEAT=0.2)) as server,
        ThreadPoolExecutor() as pool,
    ):
        with connected(server, "/events/a") as client, connected(server, "/connect") as other:
            blocked = pool.submit(post, server, "/log?lines=1000")
            await_blocked_writer(worker_of(server))
            published = pool.submit(lambda: [post(server, "/publish/a", number) for number in range(5)])
            if kind == "gthread":
                assert client.texts(5) == list("01234")
                post(server, "/send", "y")
                assert other.texts(1) == ["y"]
                await_heartbeats(client)
            assert not blocked.done()
            reader.enter_context(subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL))
            assert blocked.result(PATIENCE) == {"called": True}
            published.result(PATIENCE)
            if kind == "gevent":
                assert client.texts(5) == list("01234")
                await_heartbeats(client)
            assert get(server, "/stats")["clients"] == 2


def test_log_that_drops_lines_does_not_block_a_gevent_worker(pipe: tuple[str, int]) -> None:
    path, _ = pipe
    settings = {**config(SSE_HEARTBEAT=0.2), "LOSE_LINES": "1"}
    with (
        redirected("gevent", f">{path} 2>&1", env=settings) as server,
        connected(server, "/events/a") as client,
    ):
        assert post(server, "/log?lines=1000") == {"called": True}
        post(server, "/publish/a", "x")
        assert client.texts(1) == ["x"]
        await_heartbeats(client)


def await_blocked_writer(process: psutil.Process) -> None:
    """Wait until one of its threads waits in ``write``: 1 on Intel's and AMD's machines, 64 on ARM's."""

    def is_writing() -> bool:
        calls = [Path(f"/proc/{process.pid}/task/{thread.id}/syscall").read_text() for thread in process.threads()]
        return any(call.split()[0] in ("1", "64") for call in calls)

    until(is_writing, "the pipe to be full")
