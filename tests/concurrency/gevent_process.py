"""A process patched by gevent: the stress test, or a foreign thread that comes first, forks, long passes. A program."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import gevent  # noqa: E402
from flask import Flask  # noqa: E402
from gevent.hub import get_hub  # noqa: E402

from flask_sse_emitters import SSE, CloseReason, SseEmitter, SseEmitters  # noqa: E402
from flask_sse_emitters.runtime.gevent_loop import is_green  # noqa: E402
from tests.concurrency.stress import churn_and_send, publish_to_streams  # noqa: E402
from tests.support.waiting import PATIENCE, until  # noqa: E402
from tests.unit.doubles.writer import texts_of  # noqa: E402


def check_callbacks_run_at_once() -> None:
    """Check that an end reaches its callbacks at once, not with the next timer, which is a minute away."""
    emitter, called = SseEmitter(timeout=60), threading.Event()
    emitter.on_completion(called.set)
    emitter.complete()
    assert called.wait(PATIENCE)


def check_foreign_thread_comes_first() -> None:
    emitter = get_hub().threadpool.apply(lambda: SseEmitter(timeout=0.05))
    check_callbacks_run_at_once()
    until(lambda: emitter.close_reason is CloseReason.TIMEOUT, "the timer set by a foreign thread")


def check_fork() -> None:
    emitters = SseEmitters()
    emitters.add(SseEmitter())
    child = os.fork()
    if child == 0:
        try:
            check_callbacks_run_at_once()
            own = emitters.add(SseEmitter())
            assert emitters.send("x") == 1
            assert texts_of(own) == ["x"]
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    check_callbacks_run_at_once()


def check_long_pass_yields() -> None:
    """Check that other greenlets run between the slices of a long delivery pass: one that echoes."""
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter()) for _ in range(20_000)]
    ours, theirs = socket.socketpair()

    def echo() -> None:
        while got := ours.recv(1):
            ours.sendall(got)

    threading.Thread(target=echo).start()
    assert emitters.send("x") == len(members)
    rounds = 0
    while emitters._delivery._is_passing:
        theirs.sendall(b"x")
        assert theirs.recv(1) == b"x"
        rounds += 1
    theirs.close()
    assert rounds >= 3, f"{rounds} echoes while 20,000 clients were served"
    assert all(texts_of(member) == ["x"] for member in members)


def check_busy_sender_yields() -> None:
    """Check that a greenlet that only sends, or publishes, lets others run: one that counts its turns."""
    app = Flask(__name__)
    sse = SSE(app)
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter(overflow="drop_oldest")) for _ in range(3)]
    turns = 0
    over = False

    def count_turns() -> None:
        nonlocal turns
        while not over:
            turns += 1
            time.sleep(0)

    counting = threading.Thread(target=count_turns, daemon=True)
    counting.start()
    for send in (emitters.send, lambda text: sse.publish("unread", text)):
        before, until_when = turns, time.monotonic() + 0.1
        with app.app_context():
            while time.monotonic() < until_when:
                send("x")
        assert turns - before >= 3, f"{turns - before} turns of another greenlet in 0.1 s"
    over = True
    counting.join()
    for member in members:
        member.complete()


class ForeignThread:
    """A call on an operating system thread, which is no greenlet."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._result = get_hub().threadpool.spawn(call)

    def join(self) -> None:
        self._result.get()


def check_stress() -> None:
    assert is_green()
    churn_and_send(lambda: time.sleep(0))
    for spawn in (gevent.spawn, ForeignThread):
        publish_to_streams(spawn, consumers=50, senders=8, each=200)


if __name__ == "__main__":
    if sys.argv[1] == "stress":
        check_stress()
    else:
        check_foreign_thread_comes_first()
        check_fork()
        check_long_pass_yields()
        check_busy_sender_yields()
    print("held")  # noqa: T201
