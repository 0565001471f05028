"""Channels and lists of a process under faults, and some of the faults: forks, and lines for a log."""

from __future__ import annotations

import ctypes
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
from tests.apps.channels import app, emitters, sse
from tests.apps.real_threads import original, start_thread
from tests.support.waiting import PATIENCE

if "LOSE_LINES" in os.environ:
    os.set_blocking(sys.stderr.fileno(), False)

if "FAKETIME_TIMESTAMP_FILE" in os.environ:  # libfaketime mistakes the monotonic end of a sleep for a time of day
    time.sleep = lambda seconds: select.select([], [], [], float(seconds)) and None

#: Made before any request, and with a preloaded app also before the worker's fork.
made_early = emitters.add(SseEmitter()) if "MADE_EARLY" in os.environ else None


@app.post("/log")
def write_log() -> ResponseReturnValue:
    """Write log lines of the app and of the package: one callback of an emitter fails, the other does not."""
    for number in range(int(request.args["lines"])):
        app.logger.warning("line %d of the app: %s", number, "x" * 100)
    emitter, ended = SseEmitter(), threading.Event()
    emitter.on_completion(lambda: 1 / 0)
    emitter.on_completion(ended.set)
    emitter.complete()
    return {"called": ended.wait(PATIENCE)}


@app.get("/time")
def get_time() -> dict[str, Any]:
    """Return the times that this process sees."""
    return {"time": time.time(), "monotonic": time.monotonic()}


@app.get("/brief")
def brief() -> ResponseReturnValue:
    """Return a stream that ends soon."""
    return SseEmitter(timeout=0.5)


@app.post("/block/<how>")
def block(how: str) -> ResponseReturnValue:
    """Block the thread of this view for some seconds, or for ever in a C library, also one that keeps Python's lock."""
    app.logger.warning("the view blocks")
    if how == "in-python":
        time.sleep(float(request.args["seconds"]))
        return {}
    library = ctypes.CDLL(None) if how == "in-c" else ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(64)  # zeros are one that nobody holds
    while True:
        library.pthread_mutex_lock(mutex)  # the second time it waits for ever, and no signal ends that


@app.post("/forks")
def fork() -> ResponseReturnValue:
    """Fork children, one after the other, while a real thread sends to all clients, unless ``quiet``.

    :return: the number of events sent, and the children's exit codes.
    """
    count, seconds = int(request.args["count"]), float(request.args.get("seconds", 0))
    begin = _CHILDREN[request.args["how"]]
    nap, over = original("time", "sleep"), threading.Event()
    sent = 0

    def broadcast() -> None:
        nonlocal sent
        while not over.is_set():
            emitters.send(sent)
            sent += 1
            nap(0.002)

    wait = time.time if "quiet" in request.args else start_thread(broadcast)
    try:
        ends = [begin(seconds) for _ in range(count)]
    finally:
        over.set()
        wait()
    return {"sent": sent, "ends": ends}


def _child(seconds: float) -> int:
    """Use this package in a child; return 0 if it works as in a fresh process."""
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
    time.sleep(seconds)  # under gevent, the parent's greenlets would continue here
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
    """Run a child by multiprocessing. Its exit code is useless: if a pool's thread forks, Python always sets 1."""
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
