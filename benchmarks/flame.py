"""Where a new client and an event to one reader go: two flame pictures, made by py-spy from samples of a worker.

python -m benchmarks.flame --subject ours-redis-gthread writes ``flame-connect.svg`` and ``flame-event.svg``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from .processes import BenchmarkFailed, alone, raise_limits
from .single import EVENT
from .steps import served, settle
from .subjects import SUBJECTS, Server

_RESULTS = Path(__file__).parent / "results"

_PY_SPY = str(Path(sysconfig.get_path("scripts")) / "py-spy")

#: Samples a second.
_RATE = 400


@contextlib.contextmanager
def sampled(server: Server, picture: Path, title: str) -> Iterator[None]:
    """Sample the worker meanwhile: its threads where they run, by function."""
    command = [_PY_SPY, "record", "--pid", str(server.pids[0]), "--rate", str(_RATE), "--function"]
    command += ["--nonblocking"]  # threads that it has stopped to look at would count as running
    spy = subprocess.Popen(
        [*command, "--format", "flamegraph", "--output", str(picture)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        time.sleep(1)  # it does not say when it has begun
        yield
    finally:
        spy.send_signal(signal.SIGINT)  # it then writes the picture
        said, _ = spy.communicate(timeout=60)
    if not picture.exists():
        raise BenchmarkFailed(f"py-spy has written nothing: {said}")
    picture.write_text(re.sub(r">[^<>]*record --pid[^<>]*<", f">{title}<", picture.read_text()))


def post(server: Server, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        for _ in range(count):
            connection.request("POST", "/publish/news", EVENT)
            connection.getresponse().read()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flame", description=__doc__)
    parser.add_argument("--subject", default="ours-redis", help="one with channels")
    parser.add_argument("--clients", type=int, default=5_000, help="and so many events")
    parser.add_argument("--output", type=Path, default=_RESULTS)
    given = parser.parse_args()
    if not shutil.which(_PY_SPY):
        parser.error('py-spy is not installed: pip install -e ".[bench]"')
    subject = next(each for each in SUBJECTS if each.name == given.subject)
    raise_limits()
    given.output.mkdir(parents=True, exist_ok=True)
    with alone(), served(subject, {"SSE_HEARTBEAT": "300"}) as (server, load):
        server.connect_each(load, 50, "warm")
        load.close()
        settle(server)
        with sampled(server, given.output / "flame-connect.svg", f"{subject.name}: a new client of its own channel"):
            server.connect_each(load, given.clients, "user")
            settle(server, look=0.5)
        with server.reader("news"):
            post(server, 50)
            title = f"{subject.name}: a POST that publishes to one reader"
            with sampled(server, given.output / "flame-event.svg", title):
                post(server, given.clients)
    return 0


if __name__ == "__main__":
    sys.exit(main())
