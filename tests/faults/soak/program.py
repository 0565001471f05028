"""A soak of hours: thousands of clients connect and disconnect, over Redis and several workers, and nothing may leak.

    make soak                                 # an hour; SOAK_SECONDS=600 make soak: ten minutes
    SOAK_WORKER=gthread make soak             # on threads
    python -m tests.faults.soak --seconds 60 --clients 500 --churn 20 --channels 1 --output build/soak

The clients are those of ``swarm_client.py``, which check that only the next event follows, over all their connections,
and that it is what was published. The first that gets anything else ends the soak. Every few seconds, the memory of
each worker and of Redis is sampled, the workers' descriptors and greenlets, and the latency of events. The exit status
is 1 if memory, descriptors or greenlets grow, or if a client gets anything but the next event.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields, replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any

import psutil

from benchmarks.processes import raise_limits
from benchmarks.report import machine
from flask_sse_emitters import Publisher
from tests.faults.network.network_clients import KEPT
from tests.faults.no_loss.swarm import Swarm
from tests.faults.no_loss.swarm_client import Habits, offset_of
from tests.faults.processes.process_servers import config
from tests.faults.soak.verdicts import WAYS, Findings, Plan, Row, surplus, verdicts
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import get
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE
from tests.support.web.workers_server import WorkersServer

#: Seconds, at most, until a client reconnects; half of them reconnect at once.
AWAY = 4.0


class Tape(OrderedDict[bytes, bytes]):
    """The newest events of a channel by id, checked with what was published.

    :param latencies: where to add the time from before an event was published until it was read.
    """

    def __init__(self, channel: str, latencies: array[float] | None) -> None:
        super().__init__()
        self._channel = channel
        self._latencies = latencies

    def setdefault(self, id: bytes, rest: bytes) -> bytes:
        text, _, again = rest.decode().removeprefix("data: ").partition(" = ")
        if self._latencies is not None:
            self._latencies.append(time.monotonic() - float(text.rpartition(" ")[2]))
        if id in self:
            return self[id]
        is_right = again == text and text.startswith(f"{self._channel} {offset_of(id)} ")
        self[id] = rest if is_right else b"something else"
        if len(self) > 5_000:
            self.popitem(last=False)
        return self[id]


def run_clients(pipe: Connection, port: int, ahead: float, habits: Habits, number: int, is_probing: bool) -> None:
    """Connect clients twice, the second time for the soak. The main function of a process.

    It sends None when the first have left, and what has happened as an answer to each None that it gets, and to the
    ids of the last events, once all clients have them. If it fails, it sends the reason.
    """
    try:
        with Swarm(port, habits, ahead) as swarm:
            swarm.add(number, within=number / 1000)
            swarm.run_to_position()
        pipe.send(None)
        newest = pipe.recv()
        with Swarm(port, habits, ahead) as swarm:
            latencies = array("d")
            for channel in habits.channels:
                swarm.tapes[channel] = Tape(channel, latencies if is_probing else None)
            swarm.add(number, within=number / 1000)
            swarm.run_to_position()
            swarm.start_cutting()
            while newest is None:
                here = sum(bool(client.socket and client.ids) for client in swarm.clients)
                pipe.send((here, swarm.events, swarm.cuts, latencies))
                del latencies[:]
                swarm.run(pipe.poll, "the next order")
                newest = pipe.recv()
            swarm.is_cutting = False
            swarm.run_to(newest)
            pipe.send((0, swarm.events, swarm.cuts, latencies))
            pipe.recv()  # until then, the streams stay open
    except BaseException as error:
        pipe.send(str(error))
        raise


class Soak:
    """A run.

    :param saw: called with each sample.
    """

    def __init__(self, plan: Plan, saw: Callable[[Row], object] = lambda _: None) -> None:
        self.findings = Findings(plan)
        self._plan = plan
        self._saw = saw
        self._channels = tuple(f"soak-{number}" for number in range(plan.channels))
        self._crowds: list[Connection] = []
        self._stopping = threading.Event()
        self._redis = RedisServer("--pidfile", "pid")
        env = config(SSE_BROKER_URL=self._redis.url)
        threads = ["--threads", "4"] if plan.worker == "gthread" else []
        self._server = WorkersServer(
            plan.worker, "tests.apps.faults.swarm:app", plan.workers, env=env, arguments=threads
        )

    def run(self) -> Findings:
        found = self.findings
        with ExitStack() as stack:
            stack.enter_context(self._redis)
            stack.enter_context(self._server)
            self._pids = sorted(worker.pid for worker in self._server.workers)
            try:
                self._start_clients(stack)
                self._hear()
                found.before = self._settled([])
                self._ask(None)
                with ThreadPoolExecutor(1) as pool:
                    publishing = pool.submit(self._publish)
                    try:
                        self._sample_until(publishing)
                    finally:
                        self._stopping.set()
                self._note(self._ask(publishing.result()))
                self._tell(None)
                found.after = self._settled(found.before)
            except BaseException as error:
                said = self._server.log[-5000:]
                error.add_note(f"--seed {self._plan.seed} repeats the choices. The server said:\n{said}")
                raise
        return found

    def _publish(self) -> dict[str, bytes]:
        """Publish to one channel after the other, each event when it is due; return the last id of each channel."""
        plan, found, ids = self._plan, self.findings, {}
        with Publisher(self._redis.url) as publisher:
            began = time.monotonic()
            for number in range(int(plan.seconds * plan.rate)):
                if self._stopping.wait(max(0.0, began + number / plan.rate - time.monotonic())):
                    break
                channel, event = self._channels[number % plan.channels], number // plan.channels + 1
                text = f"{channel} {event} {time.monotonic()}"
                ids[channel] = publisher.publish(channel, f"{text} = {text}").encode()
                found.published = number + 1
        return ids

    # The processes of the clients.

    def _start_clients(self, stack: ExitStack) -> None:
        """Start processes whose clients come and go, and one whose clients stay, and measure latency."""
        plan = self._plan
        stays = plan.clients / plan.churn - AWAY / 4  # seconds, on average
        probing = Habits(plan.seed, ways=("age",), slow=0, pairs=0, channels=self._channels)
        leaving = replace(probing, ways=WAYS, cut_every=stays, most_cuts=10**9, early=0, new=0.5, turn=0.05, away=AWAY)
        for number in range(plan.processes):
            share = plan.clients * (number + 1) // plan.processes - plan.clients * number // plan.processes
            self._start(stack, replace(leaving, seed=plan.seed + number), share, False)
        self._start(stack, probing, plan.probes, True)

    def _start(self, stack: ExitStack, *clients: Any) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        ahead = PATIENCE * self._plan.rate / self._plan.channels
        process = context.Process(target=run_clients, args=(there, self._server.port, ahead, *clients), daemon=True)
        process.start()
        there.close()
        stack.callback(process.join)
        stack.callback(process.kill)
        self._crowds.append(here)

    def _tell(self, order: object) -> None:
        for crowd in self._crowds:
            with suppress(BrokenPipeError):  # it has failed, and its reason is the answer
                crowd.send(order)

    def _hear(self) -> list[Any]:
        """Return the answer of each process."""
        answers = []
        for crowd in self._crowds:
            assert crowd.poll(2 * PATIENCE), "the clients do not answer"
            answers.append(crowd.recv())
        for answer in answers:
            assert not isinstance(answer, str), answer
        return answers

    def _ask(self, order: object) -> list[Any]:
        self._tell(order)
        return self._hear()

    def _note(self, answers: list[Any]) -> tuple[int, array[float]]:
        """Note what the clients say; return how many there are, and the latencies since the last time."""
        found, latencies = self.findings, array("d")
        found.read, found.ends = 0, Counter()
        for _, read, ends, more in answers:
            found.read += read
            found.ends.update(ends)
            latencies.extend(more)
        found.latencies.extend(latencies)
        return sum(answer[0] for answer in answers), latencies

    # Sampling.

    def _sample_until(self, publishing: Future[Any]) -> None:
        began = time.monotonic()
        for number in count(1):
            while not publishing.done() and time.monotonic() < began + number * self._plan.every:
                time.sleep(0.05)
            self._sample(time.monotonic() - began)
            if publishing.done():
                return

    def _sample(self, at: float) -> None:
        """Add a row: time in seconds, clients and what they did, latencies, and what each process holds."""
        found = self.findings
        clients, latencies = self._note(self._ask(None))
        row: Row = {"at": at, "clients": clients, "published": found.published, "read": found.read}
        row["left"] = found.ends.total()
        row |= zip(("p50 ms", "p99 ms", "max ms"), in_ms(latencies), strict=True)
        for number, held in enumerate(self._held()):
            row[f"worker {number}, MB"] = held["uss"] / 1e6
            row[f"worker {number}, other descriptors"] = held["descriptors"] - held["clients"]
            row[f"worker {number}, greenlets"] = held["greenlets"]
        redis = psutil.Process(int((self._redis.folder / "pid").read_text()))
        row["Redis, MB"] = redis.memory_full_info().uss / 1e6
        found.rows.append(row)
        self._saw(row)

    def _held(self, *, is_at_rest: bool = False) -> list[dict[str, Any]]:
        """Return what each worker holds, once all have answered; its objects only where all of it is at rest."""
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(self._pids):
            answer = get(self._server, f"/holdings?at_rest={int(is_at_rest)}")
            kept = {name: number for name, number in answer["objects"].items() if not name.startswith(KEPT)}
            figures = {name: answer[name] for name in ("uss", "descriptors", "threads", "greenlets")}
            streams = {name: answer["stats"][name] for name in ("clients", "outlets")}
            answers[answer["pid"]] = {**streams, **figures, "objects": sum(kept.values())}
        assert sorted(answers) == self._pids, f"the workers were {self._pids}, and now they are {sorted(answers)}"
        return [answers[pid] for pid in self._pids]

    def _settled(self, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what the workers hold once all clients have left and nothing remains of them, or at the timeout."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self._held(is_at_rest=True)
            have_left = not any(worker["clients"] for worker in found)
            if (have_left and not (before and surplus(before, found))) or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def in_ms(latencies: array[float]) -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the maximum in milliseconds, or zeros."""
    if len(latencies) < 2:
        return 0.0, 0.0, 0.0
    parts = quantiles(latencies, n=100)
    return 1000 * parts[49], 1000 * parts[98], 1000 * max(latencies)


class Report:
    """The report of a run: lines as it runs, which are printed and logged, JSON, and a picture."""

    def __init__(self, plan: Plan, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._log = path.with_suffix(".log").open("w")
        self._facts = machine()
        self._next = 0.0
        self._wait = 60.0 if plan.seconds >= 300 else 0.0
        self.say(f"seed {plan.seed}, warm-up {plan.warm_up:g} s: {plan}")
        self.say(", ".join(f"{key} {fact}" for key, fact in self._facts.items() if fact is not None))

    def say(self, text: str) -> None:
        for file in (sys.stdout, self._log):
            file.write(f"{text}\n")
            file.flush()

    def saw(self, row: Row) -> None:
        """Print a sample, once a minute in long runs."""
        if row["at"] >= self._next:
            if not self._next:
                self.say("\n" + " | ".join(row))
            self._next = row["at"] + self._wait
            self.say(" | ".join(f"{value:>{len(name)}.{2 * (value % 1 > 0)}f}" for name, value in row.items()))

    def end(self, found: Findings) -> bool:
        """Write everything; return whether all is well."""
        half, most, slowest = in_ms(found.latencies)
        self.say(f"\nmedian of the latency {half:.1f} ms, 99th percentile {most:.1f}, slowest {slowest:.1f}")
        self.say(f"connections left: {dict(found.ends)}")
        judged = verdicts(found)
        for verdict in judged:
            self.say(str(verdict))
        everything = {
            "machine": self._facts,
            "plan": asdict(found.plan),
            "verdicts": [*map(asdict, judged)],
            "published": found.published,
            "read": found.read,
            "ends": found.ends,
            "latency_ms": [half, most, slowest],
            "before": found.before,
            "after": found.after,
            "series": {name: json.dumps([round(row[name], 3) for row in found.rows]) for name in found.rows[0]},
        }
        self._path.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")
        draw(found, self._path.with_suffix(".svg"))
        return all(verdict.passed for verdict in judged)


def draw(found: Findings, path: Path) -> None:
    """Draw memory, latency, descriptors and greenlets over time, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "soak"
    from matplotlib import pyplot

    times = [row["at"] / 60 for row in found.rows]
    figure, grid = pyplot.subplots(2, 2, figsize=(12.8, 8), layout="constrained")
    for axes, unit in zip(grid.flat, ("MB", "ms", "other descriptors", "greenlets"), strict=True):
        for name in found.rows[0]:
            if name.endswith(unit):
                axes.plot(times, [row[name] for row in found.rows], lw=1.2, label=name)
        axes.axvspan(0, found.plan.warm_up / 60, color="#eeeeee", zorder=0)
        axes.set(title=unit, xlabel="minutes", ylim=(0, None))
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak", description="Clients that connect and disconnect, for hours."
    )
    for each in fields(Plan):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--name", default="soak", help="name of the files, without suffix")
    seconds = float(os.environ.get("SOAK_SECONDS") or Plan.seconds)
    seed = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 2**32)
    parser.set_defaults(seconds=seconds, seed=seed, worker=os.environ.get("SOAK_WORKER") or Plan.worker)
    given = vars(parser.parse_args())
    path = given.pop("output") / given.pop("name")
    plan = Plan(**given)
    limit = raise_limits()
    if limit < plan.clients + 200:
        sys.exit(f"{plan.clients} clients need {plan.clients + 200} descriptors, and {limit} may be open (ulimit -n)")
    report = Report(plan, path)
    try:
        found = Soak(plan, report.saw).run()
    except BaseException as error:
        report.say(f"FAIL  {error!r}")
        raise
    sys.exit(not report.end(found))
