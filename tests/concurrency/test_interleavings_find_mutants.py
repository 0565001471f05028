"""Mutants of the package: for each an interleaving is found that shows it, and can be replayed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from flask_sse_emitters import CopyOnWriteList
from flask_sse_emitters.broadcast import copy_on_write, delivery
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.brokers import event_log as history
from flask_sse_emitters.streams import machine
from flask_sse_emitters.streams.ends import Callbacks
from flask_sse_emitters.streams.stream import Stream
from tests.concurrency.interleavings import EDGES, LINES, TAKES, Deadlock, Explorer, NoLock, Scene
from tests.concurrency.scenes import (
    ends_of_an_emitter,
    publish_twice,
    read_and_send,
    register_callbacks,
    send_and_remove,
    send_twice,
    subscribe_during_publishes,
)
from tests.concurrency.stage import Stage


def _without_locks(module: ModuleType, name: str = "native_lock") -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, NoLock)


def _call_under_the_lock(patch: pytest.MonkeyPatch) -> None:
    release = Callbacks.release

    def call_all(self: Callbacks, *given: Any) -> None:
        with self._lock:
            release(self, *given)
            self._call_all()

    patch.setattr(Callbacks, "release", call_all)


def _return_a_live_snapshot(patch: pytest.MonkeyPatch) -> None:
    def live(self: CopyOnWriteList[Any]) -> Any:
        return self._listed()

    patch.setattr(CopyOnWriteList, "snapshot", live)
    patch.setattr(delivery, "CLIENTS_PER_LOOK", 1)


def _end_pass_without_recheck(patch: pytest.MonkeyPatch) -> None:
    begin_pass = Delivery._begin_pass

    def begin_or_sleep(self: Delivery) -> bool:
        with self.lock:
            is_empty = all(queued.number <= max(self._delivered, self._batch.last) for queued in self._outbox)
        if not is_empty:
            return bool(begin_pass(self))
        with self.lock:
            self._delivered = max(self._delivered, self._batch.last)
            self._batch, self._targets, self._position, self._is_passing = delivery._NOTHING, (), 0, False
            return False

    patch.setattr(Delivery, "_begin_pass", begin_or_sleep)


def _sleep_without_recheck(patch: pytest.MonkeyPatch) -> None:
    take = Stream._take

    def take_or_sleep(self: Stream, sleeps: bool) -> Any:
        with self.lock:
            is_empty = not self.outgoing.backlog.size and self.close_reason is None
        if not is_empty or not sleeps:
            return take(self, sleeps)
        with self.lock:
            return self.outgoing.rest(sleeps=True)

    patch.setattr(Stream, "_take", take_or_sleep)


def _go_live_without_recheck(patch: pytest.MonkeyPatch) -> None:
    def go_live(self: Delivery, member: Any, offset: int) -> bool:
        if offset != self.offset:
            return False
        with self.lock:
            member.go_live(self.number)
            return True

    patch.setattr(Delivery, "go_live", go_live)


def _call_on_two_workers(patch: pytest.MonkeyPatch) -> None:
    begin = Callbacks._begin

    def begin_again(self: Callbacks) -> None:
        self._is_calling = False
        begin(self)

    patch.setattr(Callbacks, "_begin", begin_again)


def _callbacks_that_end_each_other(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        one, other = stage.emitter(), stage.emitter()
        one.on_completion(other.complete)
        other.on_completion(one.complete)
        return Scene({"one": one.complete, "other": other.complete}, stage.background.finish)

    return scene


def _remove_twice(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        subject = CopyOnWriteList("ab")
        removed: list[bool] = []

        def check() -> None:
            assert (sorted(removed), list(subject)) == ([False, True], ["b"])

        def remove() -> None:
            removed.append(subject.remove("a"))

        return Scene({"one": remove, "other": remove}, check)

    return scene


Mutant = tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Stage], Callable[[], Scene]], str, type[Exception]]

_two_ends = partial(ends_of_an_emitter, names=("complete", "error"))
_two_workers = partial(register_callbacks, workers=2)
_reconnect = partial(subscribe_during_publishes, published=1, reconnects=True)

MUTANTS: dict[str, Mutant] = {
    "lock removed from emitters": (_without_locks(machine, "striped_lock"), _two_ends, LINES, AssertionError),
    "lock removed from lists": (_without_locks(delivery), send_twice, LINES, AssertionError),
    "lock removed from copy-on-write lists": (_without_locks(copy_on_write), _remove_twice, LINES, KeyError),
    "lock removed from logs": (_without_locks(history), publish_twice, LINES, AssertionError),
    "callback under the lock": (_call_under_the_lock, _callbacks_that_end_each_other, TAKES, Deadlock),
    "snapshot not replaced": (_return_a_live_snapshot, send_and_remove, TAKES, AssertionError),
    "outbox not re-checked": (_end_pass_without_recheck, send_twice, TAKES, AssertionError),
    "backlog not re-checked": (_sleep_without_recheck, partial(read_and_send, end="nothing"), TAKES, Deadlock),
    "live without a re-check": (_go_live_without_recheck, _reconnect, TAKES, AssertionError),
    "two workers for one emitter": (_call_on_two_workers, _two_workers, EDGES, AssertionError),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_found_and_its_schedule_replays_the_failure(
    mutant: str, explorer: Explorer, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, scene_on, explorer.grain, cause = MUTANTS[mutant]
    explorer.preemptions = 2 if explorer.grain == TAKES else 1
    if explorer.grain != LINES:
        assert explorer.explore(scene_on(stage), most=20_000), "it holds as it is"
    mutate(monkeypatch)
    scene = scene_on(stage)
    found = explorer.find(scene, most=20_000)
    print(f"{mutant}: {found}")  # noqa: T201
    assert isinstance(found.cause, cause)
    [printed] = re.findall(r"^schedule=(\{.*\})$", str(found), re.MULTILINE)
    again = explorer.replay(scene, ast.literal_eval(printed))
    assert again is not None
    assert (str(again), type(again.cause)) == (str(found), type(found.cause))
