"""The copy-on-write list. ``concurrency/test_interleavings.py`` shows what its readers see while it is changed."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flask_sse_emitters import CopyOnWriteList
from tests.support.waiting import PATIENCE

CHANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 3)))


@given(CHANGES, st.sampled_from([lambda n: n, lambda n: [n]]))
def test_copy_on_write_list_behaves_as_a_list(changes: list[tuple[bool, int]], element: Callable[[int], Any]) -> None:
    model: list[Any] = []
    subject: CopyOnWriteList[Any] = CopyOnWriteList()
    for is_add, number in changes:
        value = element(number)  # a list cannot be hashed
        if is_add:
            model.append(value)
            subject.add(value)
        else:
            assert subject.remove(value) is (value in model)
            if value in model:
                model.remove(value)
        assert list(subject) == model
        assert len(subject) == len(model)
        assert (value in subject) is (value in model)
    assert subject.snapshot() == tuple(model)
    assert list(reversed(subject)) == model[::-1]
    assert subject[:2] == tuple(model[:2])
    assert [subject.count(element(n)) for n in range(4)] == [model.count(element(n)) for n in range(4)]


def test_copy_on_write_snapshot_never_changes_and_is_shared_until_a_change() -> None:
    subject = CopyOnWriteList("ab")
    before = subject.snapshot()
    assert subject.snapshot() is before
    iterator = iter(subject)
    subject.add("c")
    subject.remove("a")
    assert before == ("a", "b")
    assert list(iterator) == ["a", "b"]
    assert subject.snapshot() == ("b", "c")
    assert repr(subject) == "CopyOnWriteList(['b', 'c'])"
    assert [subject.add_if_absent("a"), subject.add_if_absent("a")] == [True, False]
    assert list(subject) == ["b", "c", "a"]


def test_copy_on_write_readers_do_not_wait_for_a_writer() -> None:
    subject, read = CopyOnWriteList("ab"), []
    reader = threading.Thread(
        target=lambda: read.extend([subject.snapshot(), len(subject), "a" in subject, subject[0]])
    )
    with subject._lock:  # as while a writer changes it
        reader.start()
        reader.join(PATIENCE)
        assert not reader.is_alive()
    assert read == [("a", "b"), 2, True, "a"]


def _changes_take(count: int) -> float:
    subject: CopyOnWriteList[int] = CopyOnWriteList()
    leaving = random.sample(range(count), count)
    begin = time.process_time()
    for number in range(count):
        subject.add(number)
    for number in leaving:
        subject.remove(number)
    return time.process_time() - begin


def test_copy_on_write_changes_take_constant_time() -> None:
    """Compares the least processor times seen; other load only adds to a time. The ratio of O(n^2) is 100.

    Both lists fit in the processor's cache, which other load takes from a larger one.
    """
    small, large = math.inf, math.inf
    for _ in range(200):
        small, large = min(small, _changes_take(500)), min(large, _changes_take(5_000))
        if large < 10 * small * 1.5:
            break
    assert large < 10 * small * 1.5, f"5,000 changes take {large / small:.1f} times what 500 take"
