"""A short soak with everything that the long one has (``make soak``), and tests that its checks can fail."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Sequence

import pytest

from tests.faults.chunked_body import Body, WrongSequence
from tests.faults.soak.__main__ import Soak
from tests.faults.soak.events import Tape, Times, text_of
from tests.faults.soak.figures import judge, trend
from tests.faults.soak.findings import Findings, Plan
from tests.faults.soak.reader import Reader

SEED = random.SystemRandom().randrange(1, 2**32)


@pytest.mark.xdist_group("swarm")  # never at once with others that keep both cores busy
def test_short_soak_loses_no_event_and_leaks_nothing() -> None:
    plan = Plan(seconds=4, clients=80, churn=30, channels=2, probes=8, every=1, seed=SEED)
    with Soak(plan) as soak:
        found = soak.run()
        assert [str(verdict) for verdict in found.verdicts if not verdict.passed] == []
        assert found.published == plan.seconds * plan.rate
        assert found.events > 0.8 * found.published / plan.channels * plan.clients
        happened = found.happened
        assert min(happened[way] for way in ("close", "reset", "half-close")) > 10
        assert min(happened[what] for what in ("new", "back at once", "back later")) > 10
        assert found.latency.steps.total() > 0
        for row in found.rows:
            for worker in row["workers"]:
                assert worker["descriptors"] - worker["clients"] < 40
                assert worker["outlets"].keys() <= {"handed_off", "server"}
        assert all(worker["clients"] == 0 for worker in found.after)


# The reader, which checks each byte.


def _tape(published: int) -> Tape:
    times = Times(multiprocessing.get_context("spawn").RawArray("d", 2 * 101), 100)
    for number in range(1, published + 1):
        times.of(1)[number] = 1000.0 + number
    return Tape(7, 1, times)


def _event(number: int) -> bytes:
    return b"id: e-%d\ndata: %b\n\n" % (number, text_of(7, 1, number).encode())


PREAMBLE = b"retry: 3000\n: stream open\n\n"


def _read(reader: Reader, *blocks: bytes) -> None:
    reader.comes(1000.0)
    _take(reader, blocks)


def _take(reader: Reader, blocks: Sequence[bytes]) -> None:
    for block in blocks:
        reader.take(block, 1000.0)


def test_reader_accepts_published_stream_in_any_pieces() -> None:
    stream = PREAMBLE + b"id: e-3\n\n" + b"".join(map(_event, (4, 5, 6))) + b":\n\n" + b"".join(map(_event, (7, 8)))
    for size in (1, 7, 100, len(stream)):
        reader = Reader(_tape(10))
        _read(reader, *(stream[at : at + size] for at in range(0, len(stream), size)))
        assert (reader.number, reader.events, reader.is_reading) == (8, 5, True)
        assert reader.comes(1001.0) == b"e-8"
        reader.take(PREAMBLE + _event(9), 1001.0)
        assert reader.number == 9


def test_reader_cut_inside_an_event_reconnects_with_previous_id() -> None:
    reader = Reader(_tape(10))
    _read(reader, PREAMBLE + b"id: e-3\n\n" + _event(4) + _event(5)[:30])
    assert reader.comes(1001.0) == b"e-4"
    reader.take(PREAMBLE + _event(5), 1001.0)
    assert reader.number == 5


WRONG: dict[str, tuple[Sequence[bytes], str]] = {
    "doubled": ([_event(4), _event(4)], "got event 4 again, or out of order: event 5 is next of 10"),
    "missing": ([_event(4), _event(6)], "got event 6 with others missing before it: event 5 is next of 10"),
    "swapped": ([_event(5), _event(4)], "got event 5 with others missing before it: event 4 is next of 10"),
    "changed": ([_event(4).replace(b"soak", b"soap")], "got event 4 as .*soap.*, which was not published"),
    "too early": ([*map(_event, range(4, 12))], "got event 11 with others missing.*|got event 11 as .*not published"),
    "of another epoch": ([_event(4).replace(b"id: e", b"id: f")], "got event 4 as .*, which was not published"),
    "a gap": ([b'event: gap\ndata: {"requested": "e-3"}\n\n'], "got b'event: gap.*, where event 4 is next of 10"),
    "a second position": ([_event(4), b"id: e-6\n\n"], "got event 6 with others missing before it: event 5 is next"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("comes_back", [False, True])
def test_reader_reports_wrong_sequence(what: str, comes_back: bool) -> None:
    given, message = WRONG[what]
    for pieces in (given, [b"".join(given)], [bytes([byte]) for byte in b"".join(given)]):
        reader = Reader(_tape(10))
        _read(reader, PREAMBLE + b"id: e-3\n\n")
        if comes_back:
            assert reader.comes(1001.0) == b"e-3"
            reader.take(PREAMBLE, 1001.0)
        with pytest.raises(WrongSequence, match=message):
            _take(reader, pieces)


@pytest.mark.parametrize(
    ("begins", "message"),
    [
        (b"id: e-11\n\n", "begin after event 11, when 10 were published"),
        (_event(4), "before it was told where it begins"),
    ],
)
def test_new_reader_reports_wrong_start(begins: bytes, message: str) -> None:
    with pytest.raises(WrongSequence, match=message):
        _read(Reader(_tape(10)), PREAMBLE, begins)


def test_new_reader_reports_start_far_in_the_past() -> None:
    reader = Reader(_tape(10))
    reader.comes(2000.0)
    with pytest.raises(WrongSequence, match=r"begins with event 4, 996\.0 s after it was published"):
        reader.take(PREAMBLE + b"id: e-3\n\n", 2000.0)


def test_body_of_error_response_raises() -> None:
    with pytest.raises(WrongSequence, match="500 INTERNAL"):
        Body().take(b"HTTP/1.1 500 INTERNAL SERVER ERROR\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_chunked_body_is_read_in_any_pieces() -> None:
    response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\r\nc\r\nB\r\nhello world\r\n0\r\n\r\n"
    for size in (1, 2, 3, 50, len(response)):
        body = Body()
        pieces = [body.take(response[at : at + size]) for at in range(0, len(response), size)]
        assert (b"".join(pieces), body.is_over) == (b"ab\r\nchello world", True)


# The trend, which separates growth from noise.

TIMES = [5.0 * place for place in range(100)]  # as many samples as ten minutes give


def _flat(dice: random.Random) -> float:
    return 40 + dice.gauss(0, 0.01)


def _flat_with_spikes(dice: random.Random) -> float:
    return 40 + dice.gauss(0, 0.01) + 10 * (dice.random() < 0.1)


@pytest.mark.parametrize("noise", [_flat, _flat_with_spikes])
def test_noisy_flat_series_is_judged_flat(noise: Callable[[random.Random], float]) -> None:
    dice = random.Random(1)
    verdict = judge("memory", trend(TIMES, [noise(dice) for _ in TIMES]), 0.5)
    assert verdict.passed
    assert verdict.found.startswith("flat: ")


@pytest.mark.parametrize("noise", [_flat, _flat_with_spikes])
def test_growing_series_is_judged_growing(noise: Callable[[random.Random], float]) -> None:
    dice = random.Random(1)
    found = trend(TIMES, [noise(dice) + 2 * at / 3600 for at in TIMES])
    verdict = judge("memory", found, 0.5)
    assert not verdict.passed
    assert verdict.found.startswith("grows: ")
    assert found.slope == pytest.approx(2, abs=0.2)
    assert "FAIL  memory: grows: +" in str(verdict)


def test_noisy_slope_above_limit_does_not_pass() -> None:
    dice = random.Random(1)
    verdict = judge("memory", trend(TIMES, [dice.gauss(0, 5) + 2 * at / 360 for at in TIMES]), 0.5)
    assert not verdict.passed
    assert "in so short a time" in verdict.found


def test_growing_worker_fails_the_soak() -> None:
    """Each figure alone fails it, as do objects left of clients at the end."""
    assert [*_failed()] == []
    for name, more in (("private", 2e6), ("descriptors", 60), ("greenlets", 60)):
        assert len([*_failed(**{name: more})]) == 1, name
    found = _found()
    found.after[0]["descriptors"] += 10
    found.judge()
    assert [v.found for v in found.verdicts if not v.passed] == ["worker 0: +10 descriptors"]
    found = _found()
    found.failures.append("client 1 got event 7 again")
    found.behind.append("2 clients are not at the end")
    found.published = 50
    found.judge()
    assert len([verdict for verdict in found.verdicts if not verdict.passed]) == 3


def _failed(**an_hour: float) -> list[str]:
    found = _found(**an_hour)
    found.judge()
    return [str(verdict) for verdict in found.verdicts if not verdict.passed]


def _found(**an_hour: float) -> Findings:
    """Return findings of ten minutes in which these figures of the worker grow."""
    plan = Plan(seconds=600, workers=1)
    dice = random.Random(1)

    def worker(at: float) -> dict[str, float]:
        figures = {"clients": 1000, "descriptors": 1017, "greenlets": 5, "threads": 1, "private": dice.gauss(4e7, 1e4)}
        return {name: value + an_hour.get(name, 0.0) * at / 3600 for name, value in figures.items()}

    rows = [{"at": at, "workers": [worker(at)], "redis": {"private": 6e6}} for at in range(0, 600, 15)]
    still = {"clients": 0, "descriptors": 17, "greenlets": 5, "threads": 1, "objects": 60_000}
    found = Findings(plan, rows=rows, before=[dict(still)], after=[dict(still)])
    found.published, found.events = 60_000, 1
    found.happened["close"] = 30_000
    return found
