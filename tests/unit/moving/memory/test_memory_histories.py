"""Any history of a worker's channels, moved: each client, wherever it was, gets the same as if nothing had moved."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from flask_sse_emitters.brokers import CHANNEL_END, Bounds, Frame, Position, Publication, Published
from flask_sse_emitters.brokers.event_ids import read_ids
from flask_sse_emitters.brokers.memory import MemoryBroker
from tests.unit.doubles.clock import ManualScheduler
from tests.unit.doubles.two_workers import read

from .conftest import StillWorkers

CHANNELS = ["a", "b"]

channel = st.sampled_from(CHANNELS)
bounds = st.builds(Bounds, st.integers(0, 4), st.sampled_from([0.0, 10.0, 1000.0]))
plenty = st.just(Bounds(1000, 0.0))
payload = st.one_of(st.text(max_size=5).map(lambda text: b"data: %b\n\n" % text.encode()), st.binary(max_size=5))


class Step:
    """Something that happens in a worker; told by its arguments where a test fails."""

    def __init__(self, name: str, *arguments: object) -> None:
        self.name, self.arguments = name, arguments

    def __repr__(self) -> str:
        return f"{self.name}{self.arguments}"


def steps_within(bounds: st.SearchStrategy[Bounds]) -> st.SearchStrategy[list[Step]]:
    step = st.one_of(
        st.builds(Step, st.just("publish"), channel, payload, bounds, st.sampled_from([None, "k", "l"])),
        st.builds(Step, st.just("end"), channel, bounds),
        st.builds(Step, st.just("run"), channel, st.sampled_from(["r", "s"])),
        st.builds(Step, st.just("cancel"), channel),
        st.builds(Step, st.just("ask"), channel),
        st.builds(Step, st.just("pass"), st.sampled_from([1.0, 6.0, 200.0])),
    )
    return st.lists(step, max_size=12)


class History:
    """What has happened in a worker.

    :ivar ids: that clients may have, by channel, in order; also that of a channel of which they have nothing.
    """

    def __init__(self, broker: MemoryBroker, scheduler: ManualScheduler) -> None:
        self.broker, self.scheduler = broker, scheduler
        self.ids: dict[str, list[Position]] = {name: [] for name in CHANNELS}

    def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            getattr(self, step.name if step.name != "pass" else "pass_time")(*step.arguments)

    def publish(self, channel: str, payload: bytes, bounds: Bounds, key: str | None) -> None:
        self.note(channel)
        [got] = self.broker.publish_many([Publication(channel, Frame(payload, "message"), bounds, key)])
        assert isinstance(got, Published)
        if got.is_new:
            self.ids[channel] += read_ids(got.id, 1) or ()

    def end(self, channel: str, bounds: Bounds) -> None:
        self.note(channel)
        self.ids[channel] += read_ids(self.broker.publish(channel, CHANNEL_END, bounds).id, 1) or ()

    def run(self, channel: str, name: str) -> None:
        self.broker.start_run(channel, name, 5.0)

    def cancel(self, channel: str) -> None:
        self.broker.cancel_run(channel, None)

    def ask(self, channel: str) -> None:
        self.note(channel)

    def pass_time(self, seconds: float) -> None:
        self.scheduler.pass_time(seconds)
        self.scheduler.run_calls()

    def note(self, channel: str) -> None:
        state = self.broker.state(channel)
        self.ids[channel].append(Position(state.epoch, state.newest))


@settings(max_examples=150, deadline=None)
@given(steps=steps_within(bounds), later=steps_within(bounds))
def test_memory_history_reads_and_goes_on_in_another_worker_as_in_its_own(steps: list[Step], later: list[Step]) -> None:
    """A twin that stays where it is shows what was to be expected; only epochs that begin later are drawn anew."""
    scheduler = ManualScheduler()
    workers = StillWorkers(scheduler)
    history = History(workers.stops, scheduler)
    history.play(steps)
    kept = {name for name in CHANNELS if name in workers.stops._records}
    before = {(name, at): read(workers.stops, name, at) for name in kept for at in history.ids[name]}
    states = {name: workers.stops.state(name) for name in kept}
    workers.move()
    assert {(name, at): read(workers.stays, name, at) for name, at in before} == before
    assert {name: workers.stays.state(name) for name in kept} == states
    workers.taker.close()
    workers.stops.handover.end()  # in new epochs: so what is kept of both is compared by their payloads
    stays, goes_on = History(workers.stays, scheduler), History(workers.stops, scheduler)
    for step in later:
        stays.play([step])
        if step.name != "pass":  # they have one clock
            goes_on.play([step])
        assert all(_bodies(workers.stays, name) == _bodies(workers.stops, name) for name in CHANNELS)
    assert all(_facts(workers.stays, name) == _facts(workers.stops, name) for name in CHANNELS)


@settings(max_examples=150, deadline=None)
@given(there=steps_within(plenty), here=steps_within(plenty))
def test_memory_histories_of_both_workers_leave_no_client_with_a_hole(there: list[Step], here: list[Step]) -> None:
    """All that is kept: who comes back with an id of either worker gets all that it lacks of both, once, in order."""
    scheduler = ManualScheduler()
    workers = StillWorkers(scheduler)
    no_time = [[step for step in steps if step.name not in ("pass", "run")] for steps in (there, here)]
    stops, stays = History(workers.stops, scheduler), History(workers.stays, scheduler)
    stops.play(no_time[0])
    stays.play(no_time[1])
    lacking: list[tuple[str, Position, list[list[bytes]]]] = []
    for name in CHANNELS:
        first = _bodies(workers.stops, name) if name in workers.stops._records else []
        second = _bodies(workers.stays, name) if name in workers.stays._records else []
        lacking += [(name, at, [first[at.offset :], second]) for at in stops.ids[name]]
        lacking += [(name, at, [second[at.offset :]]) for at in stays.ids[name]]
    workers.move()
    for name, at, parts in lacking:
        assert _bodies(workers.stays, name, at) == [body for part in parts for body in part]
    for name in CHANNELS:
        ids = [frame.offset for frame in read(workers.stays, name) or ()]
        assert ids == list(range(1, len(ids) + 1))


def _bodies(broker: MemoryBroker, channel: str, position: Position | None = None) -> list[bytes]:
    found = read(broker, channel, position)
    assert found is not None
    return [frame.payload[frame.body :] for frame in found]


def _facts(broker: MemoryBroker, channel: str) -> tuple[object, ...]:
    state, log = broker.state(channel), broker._records.find(channel).log
    keys = [broker.publish(channel, Frame(b"x", None), None, key).is_new for key in ("k", "l")]
    return state.newest, state.oldest, state.is_complete, state.has_run, log.oldest, keys
