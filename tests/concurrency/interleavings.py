"""Run a few threads in every order that they can get the processor in, each order reproducibly.

The operations of a :class:`Scene` run on threads, one at a time. A thread stops at yield points: where it takes a lock,
where it has released one, and, if asked for, before every line of the package. There the explorer decides which thread
runs next: first it lets each thread run to its end, then it returns to the last point that had another choice, as a
depth-first search does. The threads are greenlets: the code under test cannot tell them from threads, as all its locks
are the explorer's, and a switch between them costs a hundredth.

Two parameters bound the search. The *grain*: ``TAKES`` stops where locks are taken, ``EDGES`` also where they have been
released, ``LINES`` also at every line. And *preemptions*: how often a thread that could continue may lose the processor
(None: any number, which is every interleaving of that grain). Nothing else is pruned. Once a run has used up its
preemptions, it is traced no longer: its threads lose the processor only where they wait.

A thread that waits for a lock, or sleeps, cannot be picked. If no thread can be picked, that is a deadlock or a lost
wake-up. So no run waits for anything, and needs no timeout.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

from greenlet import getcurrent, greenlet

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
        self.before_each: Callable[[], object] = lambda: None  # before a scene is made

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
        thread = _here()
        return None if thread is None else thread.name

    def pause(self, what: str, ready: Callable[[], bool] | None = None) -> None:
        """Mark a yield point."""
        if (thread := _here()) is not None:
            thread.run_of.pause(thread, what, ready)

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

    def replay(self, scene: Callable[[], Scene], schedule: Mapping[int, int]) -> Failed | None:
        """Run the scene under a schedule that a failure has printed."""
        run = self._once(scene, schedule)
        return None if run.error is None else self._failed(scene, run)

    def _once(self, scene: Callable[[], Scene], schedule: Mapping[int, int], *, traces_story: bool = False) -> _Run:
        self.before_each()
        made = scene()
        run = _Run(self, made, schedule, traces_story)
        run.go()
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


class _Thread(greenlet):
    """One of the threads that take turns in a run."""

    def __init__(self, run: _Run, index: int, name: str, call: Callable[[], object]) -> None:
        super().__init__(lambda: run.work(self))
        self.run_of = run
        self.index = index
        self.name = name
        self.call = call
        self.is_over = False
        self.ready: Callable[[], bool] | None = None  # None: it could go on
        self.at = "begins"


def _here() -> _Thread | None:
    """Return the thread of a run that calls this, if one does."""
    thread = getcurrent()
    return thread if isinstance(thread, _Thread) else None


class _Run:
    """One run of a scene, under one schedule.

    :param schedule: which thread runs next, by the number of the choice. A choice that it leaves out goes to the
        running thread, or else to the first.
    """

    def __init__(self, explorer: Explorer, scene: Scene, schedule: Mapping[int, int], traces_story: bool) -> None:
        self.error: BaseException | None = None
        self.story: list[tuple[str, str]] = []  # which thread ran, and from where
        self.schedule = dict(schedule)
        # The threads that could run, whether the first of them was running, and the one that was chosen.
        self._choices: list[tuple[list[_Thread], bool, _Thread]] = []
        self._files = explorer.files if explorer.grain == LINES else frozenset()
        self._preemptions_left = math.inf if explorer.preemptions is None else explorer.preemptions
        self._traces_story = traces_story
        self._steps = 0
        self._is_over = False
        self._main = getcurrent()
        calls = [*scene.operations.items(), *scene.background.items()]
        self._threads = [_Thread(self, index, *each) for index, each in enumerate(calls)]

    def go(self) -> None:
        tracer = sys.gettrace()
        while not self._is_over and (following := self._pick(None)) is not None:
            following.switch()  # until a thread ends, or the run
        self._is_over = True
        for thread in self._threads:  # threads in the background, and stuck ones
            if thread:
                thread.throw(_Abandoned)
        sys.settrace(tracer)

    def work(self, thread: _Thread) -> None:
        try:
            if self._files and self._preemptions_left:
                sys.settrace(self._trace)
            thread.call()
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = self.error or error
        finally:
            thread.is_over = True

    def pause(self, thread: _Thread, what: str, ready: Callable[[], bool] | None = None) -> None:
        if self._is_over:
            raise _Abandoned
        thread.at, thread.ready = what, ready
        self._steps += 1
        if not self._preemptions_left and self._steps <= MAX_STEPS and (ready is None or ready()):
            following: greenlet | None = thread
        else:
            following = self._pick(thread)
        if following is None:
            self._is_over = True
            following = self._main
        if following is not thread:
            sys.call_tracing(following.switch, ())  # from a line, this is within a tracer, where nothing is traced
        if self._traces_story:
            self.story.append((thread.name, f"{what}{_place()}"))

    def _pick(self, running: _Thread | None) -> _Thread | None:
        runnable: list[_Thread] = []
        runs = False
        for each in self._threads:
            if each.is_over or not (each.ready is None or each.ready()):
                continue
            if each is running:
                runs = True
                runnable.insert(0, each)
            else:
                runnable.append(each)
        if self.error is not None or not runnable or self._steps > MAX_STEPS:
            self._conclude(runnable)
            return None
        following = runnable[0]
        if len(runnable) > 1:
            chosen = self.schedule.get(len(self._choices))
            if chosen is not None:
                following = self._threads[chosen]
                assert following in runnable, "this scene is not the same each time"
            self._choices.append((runnable, runs, following))
            if runs and following is not running:
                self._preemptions_left -= 1
                if not self._preemptions_left:
                    sys.settrace(None)
        return following

    def _conclude(self, runnable: list[_Thread]) -> None:
        stuck = [each for each in self._threads if not each.is_over and each.at is not AT_REST]
        if self.error is None and runnable:
            self.error = AssertionError(f"no end after {MAX_STEPS} steps")
        elif self.error is None and stuck:
            self.error = Deadlock("; ".join(f"{each.name} waits: {each.at}" for each in stuck))

    def next_schedule(self, preemptions: int | None) -> dict[int, int] | None:
        """Return the next schedule of the search; None after the last."""
        used = sum(runs and chosen is not runnable[0] for runnable, runs, chosen in self._choices)
        for position in range(len(self._choices) - 1, -1, -1):
            runnable, runs, chosen = self._choices[position]
            used -= runs and chosen is not runnable[0]  # before this choice
            if chosen is not runnable[-1] and not (runs and used == preemptions):
                following = runnable[runnable.index(chosen) + 1].index
                return {at: index for at, index in self.schedule.items() if at < position} | {position: following}
        return None

    def _trace(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename in self._files else None

    def _trace_line(self, _frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line" and not self._is_over and (thread := _here()) is not None:
            self.pause(thread, "goes on")
        return self._trace_line


class ControlledLock:
    """A reentrant lock that is a yield point where it is taken and released."""

    def __init__(self, explorer: Explorer, *, is_quiet: bool = False) -> None:
        self._explorer = explorer
        self._is_quiet = is_quiet
        self._owner: greenlet | None = None
        self._depth = 0

    def __enter__(self) -> bool:
        mine = getcurrent()
        if self._owner is not mine:
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
        return self._owner is getcurrent()

    def _is_free(self) -> bool:
        return self._owner is None


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
