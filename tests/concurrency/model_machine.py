"""What the machines of the model tests have in common: an app, a clock that a step moves, and threads.

A longer run by hand: ``MODEL_EXAMPLES=20000``. A failure is shrunk and printed as a program.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from flask_sse_emitters import SSE, SseEmitter
from flask_sse_emitters.streams.emitter import stream_of
from tests.unit.doubles.clock import ManualScheduler

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "80"))

QUICK = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    derandomize="MODEL_EXAMPLES" not in os.environ,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

#: Threads that do the steps. Only on the first one may lists run delivery passes.
WORKERS = 3
HELPER = WORKERS  # one more, which calls callbacks
workers = st.integers(0, WORKERS - 1)
picks = st.integers(0, 11)
names = st.sampled_from("ab")
rarely = st.integers(0, 3).map(lambda number: number == 0)  # an ended stream shows nothing more
KINDS = ("completion", "timeout", "error")


class DeferringScheduler(ManualScheduler):
    """A scheduler that calls nothing before ``finish`` and shares another's clock."""

    def __init__(self, time: ManualScheduler) -> None:
        super().__init__()
        self.clock = lambda: time.now

    def finish(self) -> None:
        while self._soon:
            call = self._soon.popleft()
            if call() is True:
                self._soon.append(call)


class BaseMachine(RuleBasedStateMachine):
    """The base of both machines: an app, a clock that a step moves, and threads that do one step each."""

    def __init__(self, write_seconds: float = 0) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("flask_sse_emitters.streams.ends.log.exception", lambda *_: None)  # some raise
        self.time = ManualScheduler()
        self.time.writes = (
            False  # what is written past the backlog depends on time: every order of that is tried elsewhere
        )
        self.later = DeferringScheduler(self.time)
        for module in ("broadcast.delivery", "channels.replay.machine", "channels.registry"):
            self.patch.setattr(f"flask_sse_emitters.{module}.SCHEDULER", self.later)
        self.main = threading.local()
        for of_main in ("broadcast.delivery.on_main_loop", "broadcast.delivery.SCHEDULER.is_writer"):
            self.patch.setattr(f"flask_sse_emitters.{of_main}", lambda: getattr(self.main, "here", False))
        self.workers = [ThreadPoolExecutor(1) for _ in range(WORKERS + 1)]
        self.workers[0].submit(setattr, self.main, "here", True).result()
        self.app = Flask(__name__)
        self.app.config.update(SSE_HISTORY=4, SSE_HISTORY_SECONDS=0, SSE_WRITE_SECONDS=write_seconds)
        self.sse = SSE(self.app)
        self.state = self.app.extensions["sse_emitters"]
        self.state.streams.scheduler = self.time
        self.counter = 0

    def teardown(self) -> None:
        for worker in self.workers:
            worker.shutdown()
        self.patch.undo()

    def on(self, worker: int, call: Callable[[], Any]) -> Any:
        return self.workers[worker].submit(call).result()

    def new(self) -> int:
        self.counter += 1
        return self.counter

    def respond(self, emitter: SseEmitter) -> None:
        """Do what a view's response does with an emitter."""
        with self.app.app_context():
            stream_of(emitter).attach(self.state.settings, self.state.streams)
        self.state.streams.admit(emitter)
