"""The figures of reloads: the streams of workers that stop move to those that start."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from . import measure
from .load import Answer, Load, Publisher
from .measure import Results
from .plan import Plan
from .processes import BenchmarkFailed, children, family_seconds
from .steps import served, settle
from .subjects import Server, Subject
from .subjects.redis import ServerWithRedis

#: Seconds for one reload, at most.
_PATIENCE = 60


def reloads(subject: Subject, plan: Plan, results: Results) -> None:
    """What it costs to move a stream; then clients of channels, events throughout, and one SIGHUP after the other.

    The load client fails where a connection ends, and where an event is missing, doubled or out of order.
    """
    workers = 2 if subject.name.startswith("ours-redis") else 1
    settings = {"WORKERS": str(workers), "SSE_HISTORY": str(plan.reload_history)}
    with served(subject, settings) as (server, load):
        _Reloads(subject, server, load, plan, results, workers).run()


class _Reloads:
    def __init__(
        self, subject: Subject, server: Server, load: Load, plan: Plan, results: Results, workers: int
    ) -> None:
        self._subject = subject
        self._server = server
        self._load = load
        self._plan = plan
        self._results = results
        self._workers = workers
        self._clients = plan.reload_clients // plan.reload_channels * plan.reload_channels
        self._master = server.programs[-1].pid

    def run(self) -> None:
        plan, server, load = self._plan, self._server, self._load
        os.sched_setaffinity(self._master, os.sched_getaffinity(0))  # of the workers to come: any core, as on a server
        self._reload()
        settle(server)
        empty = self._cost_of_a_reload()
        load.connect(self._clients, path="/events/room-*", channels=plan.reload_channels)
        settle(server, look=0.5, share=0.1)
        for _ in range(plan.reload_moves):
            began = time.monotonic()  # no events are kept yet, which would have to be read
            self._add(measure.MOVE_CPU, (self._cost_of_a_reload() - empty) / self._clients * 1e6)
            self._add(measure.MOVE_SECONDS, time.monotonic() - began)
        post_to = {} if isinstance(server, ServerWithRedis) else {"POST_TO": str(server.port)}
        with Publisher({**server.settings, **post_to}, threads=2) as publisher:
            steady = self._events(publisher, plan.reload_steady_seconds)
            self._reload()  # a worker that has taken streams is what the others are compared with
            memory, descriptors = server.pss(), self._descriptors()
            reloaded, count = self._events_over_reloads(publisher)
            self._add(measure.RELOAD_MEMORY, (server.pss() - memory) / 1e6)
            self._add(measure.RELOAD_DESCRIPTORS, self._descriptors() - descriptors)
        self._add(measure.RELOADS, count)
        self._add(measure.RELOAD_EVENTS, reloaded.deliveries)
        self._add(measure.RELOAD_STEADY, steady.max_us / 1e3)
        self._add(measure.RELOAD_MAX, reloaded.max_us / 1e3)
        self._add(measure.RELOAD_P99, reloaded.p99_us / 1e3)

    def _events(self, publisher: Publisher, seconds: float) -> Answer:
        plan, load = self._plan, self._load
        events = round(plan.reload_rate * seconds)
        what = events, plan.reload_rate, "room-*", plan.reload_channels
        answer = load.scattered(events, lambda: publisher.begin(load.next_number, *what), channels=plan.reload_channels)
        publisher.end()
        return answer

    def _events_over_reloads(self, publisher: Publisher) -> tuple[Answer, int]:
        over, failures, count = threading.Event(), list[BaseException](), 0

        def reload_again_and_again() -> None:
            nonlocal count
            try:
                while not over.wait(self._plan.reload_every):
                    self._reload()
                    count += 1
            except BaseException as error:
                failures.append(error)

        reloading = threading.Thread(target=reload_again_and_again)
        reloading.start()
        try:
            answer = self._events(publisher, self._plan.reload_seconds)
        finally:
            over.set()
            reloading.join()
        if failures:
            raise failures[0]
        return answer, count

    def _cost_of_a_reload(self) -> float:
        """CPU seconds of everything that gunicorn runs, from a SIGHUP until the former workers have ended."""
        before = family_seconds(self._master)
        self._reload()
        settle(self._server, look=0.5, share=0.1)
        return family_seconds(self._master) - before

    def _reload(self) -> None:
        former = children(self._master)
        os.kill(self._master, signal.SIGHUP)
        self._until(lambda: not {*former} & {*children(self._master)}, "the former workers to end")
        self._server.pids = children(self._master)
        if len(self._server.pids) != self._workers:
            raise BenchmarkFailed(f"there are {len(self._server.pids)} workers in place of {self._workers}")

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"waited {_PATIENCE} s for {what}")
            time.sleep(0.02)

    def _descriptors(self) -> int:
        pids = [self._master, *children(self._master)]
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)

    def _add(self, metric: measure.Metric, value: float) -> None:
        self._results.add(metric, self._clients, self._subject.name, value)
