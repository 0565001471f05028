"""The explorer runs each order once, and reports a deadlock so that it can be replayed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.interleavings import TAKES, Deadlock, Explorer, Failed, Scene


def test_deadlock_report_names_waiting_threads_and_schedule(explorer: Explorer) -> None:
    def scene() -> Scene:
        one, other = explorer.lock(), explorer.lock()

        def take(first: Any, second: Any) -> None:
            with first, second:
                pass

        return Scene({"ann": lambda: take(one, other), "bob": lambda: take(other, one)}, lambda: None)

    explorer.grain, explorer.preemptions = TAKES, 0
    assert explorer.explore(scene) == 2, "one after the other"
    explorer.preemptions = 1
    with pytest.raises(Failed) as raised:
        explorer.explore(scene)
    found = raised.value
    assert isinstance(found.cause, Deadlock)
    assert "ann waits: takes a lock; bob waits: takes a lock" in str(found)
    assert found.schedule == {2: 1}
    assert str(explorer.replay(scene, found.schedule)) == str(found)


@pytest.mark.parametrize(("steps", "orders"), [((1, 1), 2), ((2, 2), 6), ((3, 4), 35), ((2, 2, 2), 90)])
def test_explorer_runs_every_order_once(steps: tuple[int, ...], orders: int, explorer: Explorer) -> None:
    """There are as many orders as ways to merge the threads' steps: for two threads, a binomial coefficient."""
    played: list[str] = []

    def scene() -> Scene:
        order: list[str] = []

        def run(name: str, count: int) -> None:
            for number in range(count):
                if number:
                    explorer.pause("between")
                order.append(name)

        calls = {name: lambda name=name, n=n: run(name, n) for name, n in zip("abc", steps, strict=False)}
        return Scene(calls, lambda: played.append("".join(order)))

    assert explorer.explore(scene) == orders
    assert len(set(played)) == len(played) == orders
