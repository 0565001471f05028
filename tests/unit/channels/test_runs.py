"""Runs where the broker does not say what became of a step, or where the system gives no thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import CHANNEL_END, Broker, Frame, Publication, Published
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.channels.runs import publishing_thread
from flask_sse_emitters.channels.runs.items import Items
from flask_sse_emitters.channels.runs.publishing_thread import PublishingThread, Stop
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from tests.support.board import Board
from tests.support.brokers.broker_calls import KEPT, frame
from tests.support.held_items import HeldItems, await_over
from tests.support.waiting import until


class Unsure:
    """Channels whose broker does, or does not do, what it is told first, and says of neither what became of it."""

    def __init__(self, *, does: bool) -> None:
        self.broker: Broker = MemoryBroker()
        self._does = does
        self._fails = 2

    def send(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        self._fails -= 1
        if self._fails < 0:
            return self.broker.publish_many(publications)
        if self._does:
            self.broker.publish_many(publications)
        return [BrokerUnavailable("no answer")] * len(publications)


class Overtaken(MemoryBroker):
    """Channels at whose broker, before each step of a run, somebody else cancels it and begins another one."""

    def __init__(self) -> None:
        super().__init__()
        self.broker: Broker = self

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        self._overtake()
        return super().publish_many(publications)

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        has_channel = super().renew_run(channel, run, seconds)
        self._overtake()
        return has_channel

    def send(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        return self.publish_many(publications)

    def _overtake(self) -> None:
        if self.start_run("a", "other", 10):
            return
        self.cancel_run("a", None)
        assert self.start_run("a", "other", 10)


def kept(broker: Broker) -> list[Frame]:
    assert isinstance(broker, MemoryBroker)
    log = broker._records["a"].log
    return log.after(0, log.newest)


@pytest.mark.parametrize("does", [True, False], ids=["done", "not done"])
def test_run_step_whose_outcome_is_unknown_is_done_once(does: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing_thread, "RENEW_SECONDS", 0.01)
    channels = Unsure(does=does)
    assert channels.broker.start_run("a", "run", 10)
    publishing = PublishingThread(channels, "a", "run", KEPT, 0.0)
    for number in range(5):
        publishing.pending.give(frame(number))
    assert publishing._publish_pending(), "it is not over"
    publishing.pending.finish([frame("done")])
    publishing.publish_all()
    texts = [each.payload[each.body :].removeprefix(b"data: ").strip().decode() for each in kept(channels.broker)]
    assert texts == ["0", "1", "2", "3", "4", "done", ""]
    assert publishing.is_settled


@pytest.mark.parametrize(
    ("why", "follow"),
    [(Stop.INTERRUPTED, ["interrupted", CHANNEL_END.name]), (Stop.CANCELLED, [CHANNEL_END.name])],
    ids=["interrupted", "cancelled"],
)
def test_run_whose_items_are_closed_first_says_if_it_is_interrupted(why: Stop, follow: list[str]) -> None:
    """Of its two threads, the one that pulls may be the first to notice."""
    channels = Unsure(does=True)
    channels.broker.start_run("a", "run", 10)
    publishing = PublishingThread(channels, "a", "run", KEPT, 0.0)
    publishing.stop(why)
    pulling = Items("a", ["pulled too late"], None, None, DEFAULTS)
    publishing.pending.finish(pulling.pull_all(publishing.pending, lambda: publishing.stopped))
    publishing._publish_pending()  # also where the one that publishes looked before it was cancelled
    assert [each.name for each in kept(channels.broker)] == follow


def test_run_that_is_cancelled_too_late_leaves_the_next_one_alone() -> None:
    broker = Overtaken()
    assert broker.start_run("a", "run", 10)
    publishing = PublishingThread(broker, "a", "run", KEPT, 0.0)
    publishing.stop(Stop.CANCELLED)
    publishing.publish_all()
    assert publishing.is_settled
    state = broker.state("a")
    assert (state.has_run, state.is_complete) == (True, False), "the other one has the channel"


def test_run_without_a_thread_leaves_its_channel_free(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    board.sse.publish("b", "x")  # the broker has its own thread by then
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            board.sse.channel("a").publish_from(["x"])
    assert board.sse.channel("a").publish_from(["y"]).wait(30)


@pytest.mark.parametrize("is_shared", [False, True])
def test_run_has_a_stopping_worker_let_its_streams_finish(
    is_shared: bool, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all that they read has an end: their clients would not come back, or begin anew.

    On ``memory://`` other streams as well: the process to which their clients came back would know nothing of it.
    """
    held = HeldItems()
    channel = board.sse.channel("a")

    monkeypatch.setattr(MemoryBroker, "is_shared", is_shared)

    def drains(*, bare: bool) -> str:
        with board.app.test_request_context():
            emitter = channel.subscribe(bare=bare)
        emitter.complete()
        return stream_of(emitter).settings.drain

    assert drains(bare=True) == "end"
    run = channel.publish_from(held.items(), every=0)
    assert (drains(bare=True), drains(bare=False)) == ("finish", "end" if is_shared else "finish")
    held.let(1)
    until(lambda: channel.position().endswith("-1"), "an item")
    run.cancel()
    held.let(1)
    await_over(run)
    assert (drains(bare=True), drains(bare=False)) == ("finish", "end" if is_shared else "finish")
