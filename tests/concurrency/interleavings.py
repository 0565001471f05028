"""Run a few threads in every order that they can get the processor in, each order reproducibly.

The operations of a :class:`Scene` run on threads, one at a time. A thread stops at yield points: where it takes a lock,
where it has released one, and, if asked for, before every line of the package. There the explorer decides which thread
runs next: first it lets each thread run to its end, then it returns to the last point that had another choice, as a
depth-first search does.

Two parameters bound the search. The *grain*: ``TAKES`` stops where locks are taken, ``EDGES`` also where they have been
released, ``LINES`` also at every line. And *preemptions*: how often a thread that could continue may lose the processor
(None: any number, which is every interleaving of that grain). Nothing else is pruned.

A thread that waits for a lock, or sleeps, cannot be picked. If no thread can be picked, that is a deadlock or a lost
wake-up. So no run waits for anything, and needs no timeout.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

import flask_sse_emitters

PACKAGE = str(Path(flask_sse_emitters.__file__).parent)

TAKES, EDGES, LINES = "takes", "edges", "lines"

AT_REST = "rests"

#: More steps than any run here needs: a run that takes more does not end.
MAX_STEPS = 20_000


@dataclass
class Scene:
    """Operations that run at the same time, and what must hold afterwards in any order.

    :param operations: by name, in the order in which they run without preemption.
    :param check: raises AssertionError.
    :param background: operations that run while they have something to do: see :meth:`Explorer.rest`.
    """

    operations: Mapping[str, Callable[[], object]]
    check: Callable[[], object]
    background: Mapping[str, Callable[[], object]] = field(default_factory=dict)


class Failed(AssertionError):
    """A schedule under which the check fails."""

    def __init__(self, cause: BaseException, schedule: Mapping[int, int], story: Sequence[tuple[str, str]]) -> None:
        self.cause = cause
        self.schedule = dict(schedule)
        turns = [[name, *(step for _, step in steps)] for name, steps in groupby(story, key=itemgetter(0))]
        self.story = [f"{name}: {first}" + (f" ... {rest[-1]}" if rest else "") for name, first, *rest in turns]
        what = f"{type(cause).__name__}: {cause}"
        super().__init__("\n".join([what, f"schedule={self.schedule}", *(f"    {line}" for line in self.story)]))


class Deadlock(AssertionError):
    """No thread can run, and not all are done."""


class Explorer:
    """Run scenes under every schedule.

    :param grain: where threads may lose the processor.
    :param preemptions: how often in one run; None for any number.
    :param lines_of: names of the package's modules in which each line is a yield point, if the grain is ``LINES``.
    """

    def __init__(self, grain: str = EDGES, preemptions: int | None = None, lines_of: Sequence[str] = ()) -> None:
        self.grain = grain
        self.preemptions = preemptions
        self.files = frozenset(f"{PACKAGE}/{name}.py" for name in lines_of)
        assert all(Path(file).is_file() for file in self.files), (
            "a module was moved, and its lines are no longer traced"
        )
        self._run: _Run | None = None
        self._crew: list[_Worker] = []

    def crew(self, count: int) -> list[_Worker]:
        """Return ``count`` threads for one run."""
        while len(self._crew) < count:
            self._crew.append(_Worker())
        return self._crew[:count]

    def lock(self) -> ControlledLock:
        """Return a replacement for :func:`flask_sse_emitters.runtime.locks.native_lock`."""
        return ControlledLock(self)

    def quiet_lock(self) -> ControlledLock:
        """Return a lock that is a yield point only if another thread holds it."""
        return ControlledLock(self, is_quiet=True)

    def make_waiter(self) -> ControlledWaiter:
        """Return a replacement for :func:`flask_sse_emitters.runtime.waiter.make_waiter`."""
        return ControlledWaiter(self)

    def rest(self, condition: Callable[[], bool]) -> None:
        """Suspend a background operation until the condition holds; a run may end meanwhile."""
        self.pause(AT_REST, condition)

    def name(self) -> str | None:
        """Return the name of the operation that runs on the calling thread."""
        thread = None if self._run is None else self._run.here()
        return None if thread is None else thread.name

    def pause(self, what: str, ready: Callable[[], bool] = lambda: True) -> None:
        """Mark a yield point."""
        if self._run is not None and (thread := self._run.here()) is not None:
            self._run.pause(thread, what, ready)

    def explore(self, scene: Callable[[], Scene], most: int | None = None) -> int:
        """Run the scene, made afresh each time, under every schedule.

        :param most: fail if there are more schedules, rather than run forever.
        :return: the number of schedules.
        :raises Failed: for the first schedule under which the check failed.
        """
        schedule: Mapping[int, int] | None = {}
        count = 0
        while schedule is not None:
            run = self._once(scene, schedule)
            if run.error is not None:
                raise self._failed(scene, run)
            count += 1
            assert most is None or count <= most, f"more than {most} schedules: allow fewer preemptions"
            schedule = run.next_schedule(self.preemptions)
        return count

    def find(self, scene: Callable[[], Scene], most: int | None = None) -> Failed:
        """Return the first schedule that fails; raise AssertionError if there is none."""
        try:
            count = self.explore(scene, most)
        except Failed as failed:
            return failed
        raise AssertionError(f"each of {count} schedules held")

    def replay(self, scene: Callable[[], Scene], schedule: Mapping[int, int]) -> Failed | None:
        """Run the scene under a schedule that a failure has printed."""
        run = self._once(scene, schedule)
        return None if run.error is None else self._failed(scene, run)

    def _once(self, scene: Callable[[], Scene], schedule: Mapping[int, int], *, traces_story: bool = False) -> _Run:
        self._run = None  # making the scene is no step of a thread
        made = scene()
        run = self._run = _Run(self, made, schedule, traces_story)
        run.go()
        self._run = None
        if run.error is None:
            try:
                made.check()
            except Exception as error:
                run.error = error
        return run

    def _failed(self, scene: Callable[[], Scene], run: _Run) -> Failed:
        replayed = self._once(scene, run.schedule, traces_story=True)
        assert run.error is not None
        return Failed(run.error, run.schedule, replayed.story)


class _Abandoned(BaseException):
    """Raised in a thread of a run that is over."""


class _Worker:
    """A thread of the operating system, reused for one operation after the other, as starting one is slow."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()
        self.job: Callable[[], object] = lambda: None
        threading.Thread(target=self._work, name="interleavings", daemon=True).start()

    def _work(self) -> None:
        while True:
            self.turn.acquire()
            self.job()


class _Thread:
    """One of the threads that take turns in a run."""

    def __init__(self, run: _Run, worker: _Worker, index: int, name: str, call: Callable[[], object]) -> None:
        self.index = index
        self.name = name
        self.call = call
        self.is_over = False
        self.has_begun = False
        self.ready: Callable[[], bool] = lambda: True
        self.at = "begins"
        self.turn = worker.turn
        worker.job = lambda: run.work(self)


class _Run:
    """One run of a scene, under one schedule.

    :param schedule: which thread runs next, by the number of the choice. A choice that it leaves out goes to the
        running thread, or else to the first.
    """

    def __init__(self, explorer: Explorer, scene: Scene, schedule: Mapping[int, int], traces_story: bool) -> None:
        self.error: BaseException | None = None
        self.story: list[tuple[str, str]] = []  # which thread ran, and from where
        self.schedule = dict(schedule)
        self._choices: list[
            tuple[list[int], bool, int]
        ] = []  # runnable threads, whether the first was running, and the choice
        self._files = explorer.files if explorer.grain == LINES else frozenset()
        self._traces_story = traces_story
        self._steps = 0
        self._is_over = False
        self._done = threading.Lock()
        self._here = threading.local()
        calls = [*scene.operations.items(), *scene.background.items()]
        workers = explorer.crew(len(calls))
        self._threads = [
            _Thread(self, worker, index, *each) for index, (worker, each) in enumerate(zip(workers, calls, strict=True))
        ]

    def here(self) -> _Thread | None:
        thread: _Thread | None = getattr(self._here, "thread", None)
        return thread

    def go(self) -> None:
        self._done.acquire()
        self._resume_next(None)
        self._done.acquire()
        self._is_over = True
        for thread in self._threads:  # threads in the background, and stuck ones
            if thread.has_begun and not thread.is_over:
                thread.turn.release()
                self._done.acquire()

    def work(self, thread: _Thread) -> None:
        thread.has_begun = True
        self._here.thread = thread
        try:
            sys.settrace(self._trace if self._files else None)
            thread.call()
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = self.error or error
        finally:
            sys.settrace(None)
            thread.is_over = True
        if self._is_over:
            self._done.release()
        else:
            self._resume_next(thread)

    def pause(self, thread: _Thread, what: str, ready: Callable[[], bool]) -> None:
        if self._is_over:
            raise _Abandoned
        thread.at, thread.ready = what, ready
        self._steps += 1
        if self._resume_next(thread) is not thread:
            thread.turn.acquire()
            if self._is_over:
                raise _Abandoned
        if self._traces_story:
            self.story.append((thread.name, f"{what}{_place()}"))

    def _resume_next(self, running: _Thread | None) -> _Thread | None:
        """Resume the next thread; none if this run is over."""
        following = self._pick(running)
        if following is None:
            self._done.release()
        elif following is not running:
            following.turn.release()
        return following

    def _pick(self, running: _Thread | None) -> _Thread | None:
        runnable = [each for each in self._threads if not each.is_over and each.ready()]
        if self.error is not None or not runnable or self._steps > MAX_STEPS:
            self._conclude(runnable)
            return None
        if len(runnable) == 1:
            return runnable[0]
        runnable.sort(key=lambda each: each is not running)
        following = self._threads[self.schedule.get(len(self._choices), runnable[0].index)]
        assert following in runnable, "this scene is not the same each time"
        self._choices.append(([each.index for each in runnable], runnable[0] is running, following.index))
        return following

    def _conclude(self, runnable: list[_Thread]) -> None:
        stuck = [each for each in self._threads if not each.is_over and each.at is not AT_REST]
        if self.error is None and runnable:
            self.error = AssertionError(f"no end after {MAX_STEPS} steps")
        elif self.error is None and stuck:
            self.error = Deadlock("; ".join(f"{each.name} waits: {each.at}" for each in stuck))

    def next_schedule(self, preemptions: int | None) -> dict[int, int] | None:
        """Return the next schedule of the search; None after the last."""
        used = [0]
        for runnable, runs, chosen in self._choices:
            used.append(used[-1] + (runs and chosen != runnable[0]))
        for position in range(len(self._choices) - 1, -1, -1):
            runnable, runs, chosen = self._choices[position]
            rest = runnable[runnable.index(chosen) + 1 :]
            if rest and not (runs and used[position] == preemptions):
                return {at: index for at, index in self.schedule.items() if at < position} | {position: rest[0]}
        return None

    def _trace(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename in self._files else None

    def _trace_line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line" and not self._is_over and (thread := self.here()) is not None:
            self.pause(thread, f"line {frame.f_lineno} of {Path(frame.f_code.co_filename).name}", lambda: True)
        return self._trace_line


class ControlledLock:
    """A reentrant lock that is a yield point where it is taken and released."""

    def __init__(self, explorer: Explorer, *, is_quiet: bool = False) -> None:
        self._explorer = explorer
        self._is_quiet = is_quiet
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> bool:
        mine = threading.get_ident()
        if self._owner != mine:
            if not self._is_quiet or self._owner is not None:
                self._explorer.pause("takes a lock", self._is_free)
            assert self._owner is None, "a thread outside the explorer's control holds it"
            self._owner = mine
        self._depth += 1
        return True

    def __exit__(self, *exc_info: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._owner = None
        if not self._is_quiet and self._explorer.grain != TAKES and exc_info[0] is None:
            self._explorer.pause("has released a lock")

    def is_held_here(self) -> bool:
        return self._owner == threading.get_ident()

    def _is_free(self) -> bool:
        return self._owner is None


class NoLock:
    """A lock that excludes no thread, for mutants with a lock removed."""

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc_info: object) -> None: ...


class ControlledWaiter:
    """A waiter under the explorer's control. Waking it twice for one sleep is an error, as with the real one."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._is_woken = False
        self._given: bytes | None = None

    def wait(self) -> bytes | None:
        self._explorer.pause("sleeps", lambda: self._is_woken)
        self._is_woken = False
        given, self._given = self._given, None
        return given

    def wake(self) -> None:
        assert not self._is_woken, "woken twice"
        self._is_woken = True
        self._explorer.pause("has woken a thread")

    def wake_with(self, payload: bytes) -> None:
        self._given = payload
        self.wake()


def _place() -> str:
    """Return where in the package the calling thread is, for the report of a failure."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return ""
    return f" in {frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
