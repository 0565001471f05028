"""Runs, and finite streams, in a process of gevent, used by threads that it knows nothing of."""

from __future__ import annotations

import subprocess
import sys

from tests.support.servers import ROOT

RUNS = """
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

FINITE_STREAMS = """
from gevent import monkey; monkey.patch_all()
import gevent
from flask_sse_emitters import SseEmitter
from tests.support.board import Board, texts
from tests.support.waiting import PATIENCE, until
pool, board, emitter = gevent.get_hub().threadpool, Board(), SseEmitter(max_pending=1)
board.app.add_url_rule("/", view_func=lambda: emitter)
def send():
    for number in range(50):
        emitter.send(number, wait=PATIENCE)
    emitter.complete()
with board.get("/") as response:
    pieces = response.iter_encoded()
    next(pieces)
    sending = pool.spawn(send)
    assert b"".join(pieces).count(b"data: ") == 50
    sending.get()
closed = []
class Items:
    def __iter__(self):
        return iter([1])
    def close(self):
        closed.append(1)
unused = SseEmitter().send_from(Items())
pool.apply(unused.complete)
until(lambda: closed, "the items to be closed")
print("held")
"""


def holds(program: str) -> None:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_run_under_gevent_can_be_used_by_foreign_threads() -> None:
    holds(RUNS)


def test_finite_stream_under_gevent_can_be_used_by_foreign_threads() -> None:
    """They wait for room, and end a stream whose iterable is closed then all the same."""
    holds(FINITE_STREAMS)
