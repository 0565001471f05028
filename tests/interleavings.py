"""Every order in which a few threads can get the processor: one after the other, and each the same whenever it is run.

The operations of a :class:`Scene` run on threads of which one at a time goes on. It stops at yield points: where it
takes a lock, where it has let go of one, and, where that is wanted, before every line of the package. There the
explorer decides who goes on: first it lets each thread run to its end, then it goes back to the last point where there
was another way, as a depth-first search does.

How much is searched is said by two things. The *grain*: ``TAKES`` stops where locks are taken, ``EDGES`` also where
they have been let go, ``LINES`` at every line besides. And *preemptions*: how often a thread may lose the processor
that could go on (None: as often as you like, which is every interleaving of that grain). Nothing else is pruned.

A thread that waits for a lock, or sleeps, cannot be picked. Where none can, that is a deadlock, or a wake-up that was
lost; so no run waits for anything, and there is no timeout in it.
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

#: More steps than any run here needs: one that takes more does not end.
MOST_STEPS = 20_000


@dataclass
class Scene:
    """What is done at the same time, and what must hold afterwards, whatever the order was.

    :param operations: by their names, in the order in which they run where nothing comes between.
    :param check: raises AssertionError.
    :param background: operations that go on for as long as they have something to do: see :meth:`Explorer.rest`.
    """

    operations: Mapping[str, Callable[[], object]]
    check: Callable[[], object]
    background: Mapping[str, Callable[[], object]] = field(default_factory=dict)


class Failed(AssertionError):
    """A schedule under which something does not hold."""

    def __init__(self, cause: BaseException, schedule: Mapping[int, int], story: Sequence[tuple[str, str]]) -> None:
        self.cause = cause
        self.schedule = dict(schedule)
        turns = [[name, *(step for _, step in steps)] for name, steps in groupby(story, key=itemgetter(0))]
        self.story = [f"{name}: {first}" + (f" ... {rest[-1]}" if rest else "") for name, first, *rest in turns]
        what = f"{type(cause).__name__}: {cause}"
        super().__init__("\n".join([what, f"schedule={self.schedule}", *(f"    {line}" for line in self.story)]))


class Deadlock(AssertionError):
    """Nobody can go on, and not all are done."""


class Explorer:
    """Runs scenes.

    :param grain: where threads may lose the processor.
    :param preemptions: how often, in one run; None for any number.
    :param lines_of: the modules of the package whose lines count, by name, where the grain is ``LINES``.
    """

    def __init__(self, grain: str = EDGES, preemptions: int | None = None, lines_of: Sequence[str] = ()) -> None:
        self.grain = grain
        self.preemptions = preemptions
        self.files = frozenset(f"{PACKAGE}/{name}.py" for name in lines_of)
        assert all(Path(file).is_file() for file in self.files), "a module was moved, and its lines no longer count"
        self._run: _Run | None = None
        self._crew: list[_Worker] = []

    def crew(self, count: int) -> list[_Worker]:
        """So many threads, for one run."""
        while len(self._crew) < count:
            self._crew.append(_Worker())
        return self._crew[:count]

    def lock(self) -> ControlledLock:
        """What takes the place of :func:`flask_sse_emitters.runtime.locks.native_lock`."""
        return ControlledLock(self)

    def quiet_lock(self) -> ControlledLock:
        """A lock that is no yield point, but where somebody holds it."""
        return ControlledLock(self, is_quiet=True)

    def make_waiter(self) -> ControlledWaiter:
        """What takes the place of :func:`flask_sse_emitters.runtime.waiter.make_waiter`."""
        return ControlledWaiter(self)

    def rest(self, condition: Callable[[], bool]) -> None:
        """Have a background operation go on no sooner than this holds; a run may end while it rests."""
        self.pause(AT_REST, condition)

    def name(self) -> str | None:
        """Of the operation whose thread calls this."""
        thread = None if self._run is None else self._run.here()
        return None if thread is None else thread.name

    def pause(self, what: str, ready: Callable[[], bool] = lambda: True) -> None:
        """A yield point."""
        if self._run is not None and (thread := self._run.here()) is not None:
            self._run.pause(thread, what, ready)

    def explore(self, scene: Callable[[], Scene], most: int | None = None) -> int:
        """Run the scene, made anew each time, under every schedule.

        :param most: fail where there are more, rather than take for ever.
        :return: how many schedules there were.
        :raises Failed: for the first under which something did not hold.
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
        """The first schedule that fails; AssertionError where there is none."""
        try:
            count = self.explore(scene, most)
        except Failed as failed:
            return failed
        raise AssertionError(f"each of {count} schedules held")

    def replay(self, scene: Callable[[], Scene], schedule: Mapping[int, int]) -> Failed | None:
        """Run the scene under this schedule, as a failure has printed it."""
        run = self._once(scene, schedule)
        return None if run.error is None else self._failed(scene, run)

    def _once(self, scene: Callable[[], Scene], schedule: Mapping[int, int], *, tells: bool = False) -> _Run:
        self._run = None  # what is made for the scene is nobody's step
        made = scene()
        run = self._run = _Run(self, made, schedule, tells)
        run.go()
        self._run = None
        if run.error is None:
            try:
                made.check()
            except Exception as error:
                run.error = error
        return run

    def _failed(self, scene: Callable[[], Scene], run: _Run) -> Failed:
        told = self._once(scene, run.schedule, tells=True)
        assert run.error is not None
        return Failed(run.error, run.schedule, told.story)


class _Abandoned(BaseException):
    """This run is over: leave it."""


class _Worker:
    """A thread of the operating system, which runs one operation after the other: to start one takes long."""

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
    """One of those that take turns in a run."""

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
    """The scene once, under one schedule.

    :param schedule: which thread goes on where there are several that could, by the number of that choice. Left out:
        the one that runs, or else the first.
    """

    def __init__(self, explorer: Explorer, scene: Scene, schedule: Mapping[int, int], tells: bool) -> None:
        self.error: BaseException | None = None
        self.story: list[tuple[str, str]] = []  # who went on, and from where
        self.schedule = dict(schedule)
        self._choices: list[
            tuple[list[int], bool, int]
        ] = []  # who could go on, whether the first of them ran, and who did
        self._files = explorer.files if explorer.grain == LINES else frozenset()
        self._tells = tells
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
        self._go_on(None)
        self._done.acquire()
        self._is_over = True
        for thread in self._threads:  # those in the background, and those that are stuck
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
            self._go_on(thread)

    def pause(self, thread: _Thread, what: str, ready: Callable[[], bool]) -> None:
        if self._is_over:
            raise _Abandoned
        thread.at, thread.ready = what, ready
        self._steps += 1
        if self._go_on(thread) is not thread:
            thread.turn.acquire()
            if self._is_over:
                raise _Abandoned
        if self._tells:
            self.story.append((thread.name, f"{what}{_place()}"))

    def _go_on(self, running: _Thread | None) -> _Thread | None:
        """Let somebody go on; nobody, where this run is over."""
        following = self._pick(running)
        if following is None:
            self._done.release()
        elif following is not running:
            following.turn.release()
        return following

    def _pick(self, running: _Thread | None) -> _Thread | None:
        able = [each for each in self._threads if not each.is_over and each.ready()]
        if self.error is not None or not able or self._steps > MOST_STEPS:
            self._conclude(able)
            return None
        if len(able) == 1:
            return able[0]
        able.sort(key=lambda each: each is not running)
        following = self._threads[self.schedule.get(len(self._choices), able[0].index)]
        assert following in able, "this scene is not the same each time"
        self._choices.append(([each.index for each in able], able[0] is running, following.index))
        return following

    def _conclude(self, able: list[_Thread]) -> None:
        stuck = [each for each in self._threads if not each.is_over and each.at is not AT_REST]
        if self.error is None and able:
            self.error = AssertionError(f"no end after {MOST_STEPS} steps")
        elif self.error is None and stuck:
            self.error = Deadlock("; ".join(f"{each.name} waits: {each.at}" for each in stuck))

    def next_schedule(self, preemptions: int | None) -> dict[int, int] | None:
        """The one after this in the search; None after the last."""
        used = [0]
        for able, runs, chosen in self._choices:
            used.append(used[-1] + (runs and chosen != able[0]))
        for position in range(len(self._choices) - 1, -1, -1):
            able, runs, chosen = self._choices[position]
            rest = able[able.index(chosen) + 1 :]
            if rest and not (runs and used[position] == preemptions):
                return {each: who for each, who in self.schedule.items() if each < position} | {position: rest[0]}
        return None

    def _trace(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename in self._files else None

    def _trace_line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line" and not self._is_over and (thread := self.here()) is not None:
            self.pause(thread, f"line {frame.f_lineno} of {Path(frame.f_code.co_filename).name}", lambda: True)
        return self._trace_line


class ControlledLock:
    """A reentrant lock. Where it is taken, and left, others may go on."""

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
            assert self._owner is None, "a thread that nobody controls holds it"
            self._owner = mine
        self._depth += 1
        return True

    def __exit__(self, *exc_info: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._owner = None
        if not self._is_quiet and self._explorer.grain != TAKES and exc_info[0] is None:
            self._explorer.pause("has left a lock")

    def is_held_here(self) -> bool:
        return self._owner == threading.get_ident()

    def _is_free(self) -> bool:
        return self._owner is None


class NoLock:
    """What is left of a lock where somebody has removed it: it keeps nobody out."""

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc_info: object) -> None: ...


class ControlledWaiter:
    """Lets its one sleeper sleep until it is woken; to wake it twice for one sleep is an error, as it is in earnest."""

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
        self._explorer.pause("has woken somebody")

    def wake_with(self, payload: bytes) -> None:
        self._given = payload
        self.wake()


def _place() -> str:
    """Where in the package the calling thread is, for whoever reads of a failure."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return ""
    return f" in {frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
