"""Channels and lists of a process that is in trouble, and some of the trouble: forks, and lines for a log."""

from __future__ import annotations

import multiprocessing
import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.runtime.gevent_loop import is_green, unpatched

from .channels_app import app, emitters, sse
from .waiting import PATIENCE

if "LOSE_LINES" in os.environ:
    os.set_blocking(sys.stderr.fileno(), False)

if "FAKETIME_TIMESTAMP_FILE" in os.environ:  # libfaketime takes the monotonic end of a sleep for a time of day
    time.sleep = lambda seconds: select.select([], [], [], float(seconds)) and None

#: Before any request, and before the fork of a worker where the app is loaded before that.
made_early = emitters.add(SseEmitter()) if "MADE_EARLY" in os.environ else None


@app.post("/log")
def write_log() -> ResponseReturnValue:
    """Lines for the log, by the app and by the package: of an emitter one callback fails, the other does not."""
    for number in range(int(request.args["lines"])):
        app.logger.warning("line %d of the app: %s", number, "x" * 100)
    emitter, ended = SseEmitter(), threading.Event()
    emitter.on_completion(lambda: 1 / 0)
    emitter.on_completion(ended.set)
    emitter.complete()
    return {"called": ended.wait(PATIENCE)}


@app.get("/time")
def tell_time() -> dict[str, Any]:
    """What this process takes for the time."""
    return {"time": time.time(), "monotonic": time.monotonic()}


@app.get("/brief")
def brief() -> ResponseReturnValue:
    """A stream that is over soon."""
    return SseEmitter(timeout=0.5)


@app.post("/forks")
def fork() -> ResponseReturnValue:
    """So many children, one after the other, while a thread of the system sends to all clients; or in quiet.

    :return: how many events were sent, and how the children ended.
    """
    count, seconds = int(request.args["count"]), float(request.args.get("seconds", 0))
    begin = _CHILDREN[request.args["how"]]
    nap, over = unpatched("time", "sleep"), threading.Event()
    sent = 0

    def broadcast() -> None:
        nonlocal sent
        while not over.is_set():
            emitters.send(sent)
            sent += 1
            nap(0.002)

    wait = time.time if "quiet" in request.args else _on_real_thread(broadcast)
    try:
        ends = [begin(seconds) for _ in range(count)]
    finally:
        over.set()
        wait()
    return {"sent": sent, "ends": ends}


def _child(seconds: float) -> int:
    """What a child does with what it has of this package. 0 where that is as in a process of its own."""
    if len(emitters) or sse.stats()["clients"]:
        return 1
    emitters.send("of a child")
    own, ended = emitters.add(SseEmitter(timeout=60)), threading.Event()
    own.on_completion(ended.set)
    sse.publish("a", "of a child")
    emitters.send("of a child")
    own.complete()
    if not ended.wait(PATIENCE):
        return 2
    time.sleep(seconds)  # under gevent, whatever the parent's greenlets were at goes on here
    return 0


def _fork(seconds: float) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 3
    try:
        code = _child(seconds)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _start_process(seconds: float) -> int:
    """The exit code would tell nothing: where a pool's thread forks, it is 1 in any case, in Python itself."""
    context = multiprocessing.get_context("fork")
    code: Any = context.Value("i", 3, lock=False)

    def run() -> None:
        code.value = _child(seconds)

    process = context.Process(target=run)
    process.start()
    process.join()
    return int(code.value)


def _run_program(_seconds: float) -> int:
    return subprocess.run(["true"], check=False).returncode


_CHILDREN: dict[str, Callable[[float], int]] = {
    "os.fork": _fork,
    "multiprocessing": _start_process,
    "subprocess": _run_program,
}


def _on_real_thread(call: Callable[[], None]) -> Callable[[], object]:
    """Run this where it may be anywhere when the process forks, whatever is patched."""
    if is_green():
        from gevent.hub import get_hub

        wait: Callable[[], object] = get_hub().threadpool.spawn(call).get
        return wait
    thread = threading.Thread(target=call)
    thread.start()
    return thread.join
