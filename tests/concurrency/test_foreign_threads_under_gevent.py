"""Runs in a process of gevent: begun, awaited and cancelled by threads that it knows nothing of."""

from __future__ import annotations

import subprocess
import sys

from tests.support.servers import ROOT

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import gevent
from tests.support.board import Board, texts
from tests.support.waiting import PATIENCE
pool, board = gevent.get_hub().threadpool, Board()
with board.open("a") as stream:  # so that the package's own background greenlet is there
    run = pool.apply(lambda: board.sse.channel("a").publish_from(map(str, range(500)), done="done"))
    assert pool.apply(run.wait, (PATIENCE,)) and not run.is_running
    assert texts(stream.ready()) == [*map(str, range(500)), "done", ""]
def endless():
    while True:
        yield "x"
        gevent.sleep(0.001)
run = board.sse.channel("b").publish_from(endless(), done="done")
assert not run.wait(0.01)
assert not pool.apply(run.wait, (0.01,))
pool.apply(run.cancel)
assert board.sse.channel("b").is_complete and run.wait(PATIENCE)
print("held")
"""


def test_run_under_gevent_can_be_used_by_foreign_threads() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
