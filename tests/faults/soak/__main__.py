"""A soak of hours: thousands of clients connect and disconnect, over Redis and several workers, and nothing may leak.

    make soak                                 # an hour; SOAK_SECONDS=600 make soak: ten minutes
    python -m tests.faults.soak --seconds 60 --clients 500 --churn 20 --channels 1 --output build/soak

Every few seconds, all figures are sampled from outside: memory, descriptors and threads of each worker and of Redis,
the workers' own figures, and the latency of events. Each client compares every byte with what was published
(``soak_reader.py``). The exit status is 1 if memory, descriptors or greenlets grow, or if a client gets anything but
the next event.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.processes import cpu_seconds, raise_limits
from tests.faults.soak import report as soak_report
from tests.faults.soak.child import Child
from tests.faults.soak.clients import run_clients
from tests.faults.soak.crowd import Habits, Tally
from tests.faults.soak.events import Histogram, Times, publish
from tests.faults.soak.figures import held
from tests.faults.soak.findings import LEFT, Findings, Plan, surplus
from tests.support.client import get
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE
from tests.support.workers_server import WorkersServer

#: Seconds between two counts of objects, which are rarer because a worker has to visit all of its objects.
OBJECTS_EVERY = 30.0


class Soak:
    """A run in a ``with`` block.

    :param say: called with each line of the log.
    :param saw: called with each sample, as in :attr:`.Findings.rows`.
    """

    def __init__(
        self,
        plan: Plan,
        say: Callable[[str], object] = lambda _: None,
        saw: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        self.findings = Findings(plan)
        self._plan = plan
        self._say = say
        self._saw = saw
        self._stack = ExitStack()
        self._tallies: dict[int, Tally] = {}  # the last of each process
        self._since = Tally()  # what has happened since the last sample
        self._late = Histogram()
        self._done: set[int] = set()
        self._ids: list[str] | None = None
        self._objects_due = 0.0
        self._began = 0.0

    def __enter__(self) -> Soak:
        with ExitStack() as stack:
            self._redis = _Redis()
            stack.enter_context(self._redis)
            self._server = stack.enter_context(_serving(self._plan, self._redis))
            self._pids = sorted(process.pid for process in self._server.workers)
            times = _times(self._plan)
            self._crowds = [
                Child(f"clients {number}", run_clients, self._server.port, habits, times)
                for number, habits in enumerate(_habits(self._plan))
            ]
            plan = self._plan
            self._publisher = Child(
                "publisher", publish, self._redis.url, plan.seed, plan.channels, plan.rate, plan.seconds, times
            )
            self._children = [*self._crowds, self._publisher]
            for child in self._children:
                stack.callback(child.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            error.add_note(
                f"--seed {self._plan.seed} repeats the choices. The server said:\n{self._server.log[-5000:]}"
            )
        self._stack.close()

    def run(self) -> Findings:
        """Run everything; return the findings, with the verdicts."""
        found = self.findings
        self._order_clients("come")
        self._order_clients("leave")
        found.before = self._settled([])
        self._order_clients("come")
        self._say(f"{sum(tally.present for tally in self._tallies.values()):,} clients are connected")
        self._order_clients("churn")
        self._publish()
        self._order_clients("end", self._ids)
        self._order_clients("leave")
        found.after = self._settled(found.before)
        found.events = sum(tally.events for tally in self._tallies.values())
        found.judge()
        return found

    def _publish(self) -> None:
        self._publisher.pipe.send("go")
        self._began = self._looked = time.monotonic()
        due = self._began
        while self._ids is None:
            if time.monotonic() >= due:
                due += self._plan.every
                self._sample()
            self._receive(due - time.monotonic())
        self._sample()

    def _order_clients(self, name: str, value: object = None) -> None:
        """Order all clients to do something, and wait until they have done it."""
        self._done.clear()
        for crowd in self._crowds:
            crowd.pipe.send((name, value))
        deadline = time.monotonic() + 2 * PATIENCE
        while len(self._done) < len(self._crowds):
            self._receive(0.1)
            if time.monotonic() > deadline:
                failures = "\n".join(self.findings.failures[:5])
                raise AssertionError(f"the clients did not {name} within {2 * PATIENCE:g} s\n{failures}")

    def _receive(self, seconds: float) -> None:
        """Receive messages of the processes, for ``seconds`` at most."""
        wait([child.pipe for child in self._children], max(0.0, seconds))
        for crowd in self._crowds:
            for message in crowd.messages():
                if message == "done":
                    self._done.add(crowd.pid)
                elif isinstance(message, str):
                    self.findings.behind += [message] * bool(message)
                else:
                    self._add(crowd.pid, message)
        if self._ids is None:
            for message in self._publisher.messages():
                self.findings.published = message["published"]
                self._late.merge(message["late"])
                self._ids = message.get("ids")

    def _add(self, pid: int, tally: Tally) -> None:
        self._tallies[pid] = tally
        found = self.findings
        for text in tally.failures:
            if len(found.failures) < 20:
                self._say(text)
            found.failures.append(text)
        found.happened.update(tally.happened)
        found.latency.merge(tally.latency)
        self._since.latency.merge(tally.latency)
        self._since.happened.update(tally.happened)

    # Sampling.

    def _sample(self) -> None:
        now = time.monotonic()
        with_objects = now >= self._objects_due
        if with_objects:
            self._objects_due = now + OBJECTS_EVERY
        workers = self._workers(with_objects)
        if with_objects:
            self._note_kinds([worker.pop("kinds") for worker in workers])
        redis = held(self._redis.pid)
        row: dict[str, Any] = {
            "at": round(now - self._began, 2),
            "present": sum(tally.present for tally in self._tallies.values()),
            "published": self.findings.published,
            "left": sum(self._since.happened[way] for way in LEFT),
            "latency": self._since.latency,
            "late": self._late,
            "redis": {"private": redis.private, "resident": redis.resident, "descriptors": redis.descriptors},
            "workers": workers,
            "cpu": self._cpu(),
            "load": os.getloadavg()[0],
        }
        self.findings.late.merge(self._late)
        self._since, self._late = Tally(), Histogram()
        self.findings.rows.append(row)
        self._saw(row)

    def _cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each kind of process since its start."""
        return {
            "workers": round(cpu_seconds(self._pids), 2),
            "redis": round(cpu_seconds([self._redis.pid]), 2),
            "clients": round(cpu_seconds(crowd.pid for crowd in self._crowds), 2),
        }

    def _workers(self, with_objects: bool) -> list[dict[str, Any]]:
        """Return what each worker holds and reports, once all have answered."""
        answers: dict[int, dict[str, Any]] = {}
        path = f"/figures{'?objects=1' if with_objects else ''}"
        while len(answers) < len(self._pids):
            answer = get(self._server, path)
            answers[answer["pid"]] = answer
        if set(answers) != set(self._pids):
            raise AssertionError(f"the workers were {self._pids}, and now they are {sorted(answers)}")
        return [answers[pid] | asdict(held(pid)) for pid in self._pids]

    def _note_kinds(self, kinds: list[dict[str, int]]) -> None:
        """Keep the counts at the end of the warm-up, and the last ones."""
        is_warm = time.monotonic() - self._began >= self._plan.warm_up
        self.findings.kinds[is_warm:] = [kinds]

    def _settled(self, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what the workers hold once all clients have left and nothing remains of them, or at the timeout."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self._workers(with_objects=True)
            have_left = all(worker["clients"] == 0 for worker in found)
            if (have_left and (not before or not surplus(before, found))) or time.monotonic() > deadline:
                for worker in found:
                    del worker["kinds"]
                return found
            time.sleep(0.2)


class _Redis(RedisServer):
    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


def _serving(plan: Plan, redis: RedisServer) -> WorkersServer:
    env = {"SSE_BROKER_URL": redis.url, "SOAK_CHANNELS": str(plan.channels)}
    return WorkersServer("gevent", "tests.apps.soak:app", plan.workers, env=env)


def _times(plan: Plan) -> Times:
    most = int(plan.seconds * plan.rate / plan.channels) + 2
    return Times(multiprocessing.get_context("spawn").RawArray("d", plan.channels * (most + 1)), most)


def _habits(plan: Plan) -> Iterator[Habits]:
    for number in range(plan.processes):
        first, end = (plan.clients * each // plan.processes for each in (number, number + 1))
        share = (end - first) / plan.clients
        probes = round(plan.probes * share)
        yield Habits(plan.seed, end - first, first, plan.channels, plan.churn * share, probes)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak", description="Clients that connect and disconnect, for hours."
    )
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_SECONDS") or Plan.seconds))
    parser.add_argument("--clients", type=int, default=Plan.clients)
    parser.add_argument("--churn", type=float, default=Plan.churn, help="clients that disconnect in a second")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="events in a second, in all channels")
    parser.add_argument("--channels", type=int, default=Plan.channels, help="each client reads one of them")
    parser.add_argument("--workers", type=int, default=Plan.workers)
    parser.add_argument("--processes", type=int, default=Plan.processes, help="number of processes for the clients")
    parser.add_argument("--every", type=float, default=Plan.every, help="seconds between two samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--name", default="soak", help="name of the files, without suffix")
    given = vars(parser.parse_args())
    output, name = given.pop("output"), given.pop("name")
    given["seed"] = given["seed"] or random.SystemRandom().randrange(1, 2**32)
    plan = Plan(**given)
    limit = raise_limits()
    if limit < plan.clients + 200:
        sys.exit(f"{plan.clients} clients need {plan.clients + 200} descriptors, and {limit} may be open (ulimit -n)")
    with soak_report.Report(plan, output, name) as report:
        with Soak(plan, report.say, report.saw) as soak:
            found = soak.run()
        report.end(found)
    sys.exit(0 if all(verdict.passed for verdict in found.verdicts) else 1)


if __name__ == "__main__":
    main()
