"""A short soak with everything that the long one has (``make soak``), and tests that its checks can fail."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.faults.no_loss.swarm import Swarm
from tests.faults.no_loss.swarm_client import Client, Habits
from tests.faults.soak.program import Soak, Tape
from tests.faults.soak.verdicts import WAYS, Findings, Plan, Row, verdicts


@pytest.mark.xdist_group("swarm")  # never at once with others that keep both cores busy
@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_short_soak_loses_no_event_and_leaks_nothing(worker: str, seed: int) -> None:
    plan = Plan(seconds=4, clients=80, churn=30, channels=2, worker=worker, processes=1, probes=8, every=1, seed=seed)
    found = Soak(plan).run()
    assert [str(verdict) for verdict in verdicts(found) if not verdict.passed] == []
    assert found.read > 10 * found.published  # a slow machine's clients are away for longer
    assert min(found.ends[way] for way in WAYS) > 10
    assert len(found.latencies) > found.published
    for row in found.rows:
        assert row["worker 0, other descriptors"] < 40
    assert all(worker["clients"] == 0 for worker in found.after)
    assert all(worker["outlets"].keys() <= {"handed_off", "server"} for worker in found.after)


def _event(number: int) -> bytes:
    text = f"a {number} 1.5"
    return f"id: e-{number}\ndata: {text} = {text}\n\n".encode()


WRONG = {
    "doubled": (_event(4) + _event(4), "at b'e-4' .* got b'id: e-4"),
    "missing": (_event(4) + _event(6), "got b'id: e-6"),
    "swapped": (_event(5) + _event(4), "got b'id: e-5"),
    "changed": (_event(4).replace(b" 1.5 ", b" 1.6 "), "others got b'something else'"),
    "under another id": (_event(5).replace(b"e-5", b"e-4"), "others got b'something else'"),
    "of another epoch": (_event(4).replace(b"id: e", b"id: f"), "got b'id: f-4"),
    "a gap": (b'event: gap\ndata: {"requested": "e-3", "oldest": "e-9", "newest": "e-9"}\n\n', "got {'requested'"),
    "a second position": (_event(4) + b"id: e-6\n\n", "is sent to .*e-6.* without a reason"),
    "new, and given events before a position": (_event(4), "got b'id: e-4"),
    "new, and sent to the past": (b"id: e-4\n\n", "is sent to .*, when others were at"),
}


@pytest.mark.parametrize("what", WRONG)
def test_client_of_the_soak_reports_wrong_sequence(what: str) -> None:
    stream, message = WRONG[what]
    with Swarm(1, Habits(1), ahead=5) as swarm:
        swarm.tapes["a"] = Tape("a", None)
        swarm.tapes["a"][b"e-10"] = b""
        client = Client(swarm, 0, ["a"])
        client.ids = [] if what.startswith("new") else [b"e-3"]
        client.connect()
        swarm.clients.append(client)
        with pytest.raises(AssertionError, match=message):
            client.take(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b" % (len(stream), stream))


def test_growing_worker_fails_the_soak() -> None:
    """Each figure alone fails it, as do objects left of clients at the end, a stream that ended, and a lower load."""
    assert _failed() == []
    for name, more in ((MEMORY, 2.0), (DESCRIPTORS, 60.0), (GREENLETS, 60.0)):
        assert [name in text for text in _failed({name: more})] == [True]
    assert ["worker 0: +10 descriptors" in text for text in _failed(descriptors_left=10)] == [True]
    assert len(_failed(cut=1)) == 1
    assert len(_failed(aged=1)) == 1
    assert _failed(aged=40, hours=1.0) == [], "those who stay reach the end of their lifetime, twice"
    assert len(_failed(aged=41, hours=1.0)) == 1
    assert len(_failed(published=50)) == 1


MEMORY, DESCRIPTORS, GREENLETS = "worker 0, MB", "worker 0, other descriptors", "worker 0, greenlets"


def _failed(
    an_hour: dict[str, float] | None = None,
    *,
    descriptors_left: int = 0,
    cut: int = 0,
    aged: int = 0,
    published: int = 60_000,
    hours: float = 1 / 6,
) -> list[str]:
    """Return what fails of such a soak, in which these figures of the worker grow."""
    dice = random.Random(1)

    def row(at: float) -> Row:
        figures = {MEMORY: 40 + dice.gauss(0, 0.01), DESCRIPTORS: 17, GREENLETS: 5}
        return {"at": at} | {name: value + (an_hour or {}).get(name, 0) * at / 3600 for name, value in figures.items()}

    still = {"clients": 0, "descriptors": 17, "greenlets": 5, "threads": 1, "objects": 60_000}
    found = Findings(
        Plan(seconds=3600 * hours, rate=100 / hours / 6, churn=50 / hours / 6, workers=1),
        rows=[row(at) for at in range(0, round(3600 * hours), 15)],
        before=[still],
        after=[still | {"descriptors": 17 + descriptors_left}],
        ends=Counter(close=30_000) + Counter({"cut by the server": cut, "age": aged}),
        published=published,
    )
    return [str(verdict) for verdict in verdicts(found) if not verdict.passed]
