"""What a worker that stops does for the streams of one app: it gives them to workers that stay.

It goes on delivering until one of these is ready. Then it gives some streams at a time. What cannot move, or is
refused, stays, and ends as without a move.

All of it happens on the thread that writes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Container

from ..runtime.calls import call_and_log
from ..runtime.scheduler import SCHEDULER
from ..streams.stream import Stream
from .app import MovingApp
from .giving import Giving
from .meeting.link import Link

log = logging.getLogger("flask_sse_emitters.moving")

#: Seconds between two looks at the connections, and between two searches for workers.
TICK_SECONDS, SEARCH_SECONDS = 0.004, 0.05

#: Seconds that are waited for more workers once one is ready, so that it does not get everything.
GATHER_SECONDS = 1.0


class Departing:
    """Gives the streams of one app away, as far as they can move.

    :param find_links: connects to workers that are ready, each of them once.
    :param may_come: returns whether more workers may become ready, where these have gone.
    :param enough: with so many workers it begins at once.
    :param until: when it gives up, by the scheduler's clock.
    """

    def __init__(
        self,
        app: MovingApp,
        find_links: Callable[[], list[Link]],
        may_come: Callable[[Container[str]], bool],
        enough: int,
        until: float,
    ) -> None:
        self.is_over = False
        self._app = app
        self._find_links = find_links
        self._may_come = may_come
        self._enough = enough
        self._until = until
        self._givings: list[Giving] = []
        self._seen: set[Stream] = set()
        self._todo: deque[Stream] = deque()
        self._search_at = self._begin_at = 0.0
        self._tick()

    def _tick(self) -> None:
        began = SCHEDULER.clock()
        call_and_log(self._serve_asks if self.is_over else self._work)
        if not self.is_over or any(giving.is_heir for giving in self._givings):
            seconds = TICK_SECONDS if any(not giving.is_over for giving in self._givings) else SEARCH_SECONDS
            SCHEDULER.call_at(began + seconds, self._tick_soon)

    def _tick_soon(self) -> None:
        """Look again after all that waits by now: timers come first, and streams that are left are to be written to."""
        SCHEDULER.call_soon(self._tick)

    def close(self) -> None:
        """Close all connections, as the process exits. Idempotent."""
        for giving in self._givings:
            giving.close()

    def _serve_asks(self) -> None:
        """Have the heir do what is still published here."""
        for giving in self._givings:
            giving.work()

    def _work(self) -> None:
        now = SCHEDULER.clock()
        if now >= self._search_at:
            self._search_at = now + SEARCH_SECONDS
            self._search()
        for giving in self._givings:
            giving.work()
        ready = [giving for giving in self._givings if giving.is_ready and not giving.is_over]
        if ready and not self._begin_at:
            self._begin_at = now + GATHER_SECONDS
        if ready and (now >= self._begin_at or len(ready) >= self._enough):
            self._offer(ready)
        is_asking = any(not giving.is_over and not giving.is_ready for giving in self._givings)
        if self.is_over:
            return
        if now >= self._until or not (ready or is_asking or self._may_come(self._gone())):
            self._finish()

    def _search(self) -> None:
        """Connect to more workers; to one at a time where channels go along: all of them go to one process."""
        if self._app.memory is None:
            self._givings += [Giving(link, self._app, self._todo) for link in self._find_links()]
        elif all(giving.is_over for giving in self._givings):
            links = self._find_links()
            self._givings += [Giving(link, self._app, self._todo) for link in links[:1]]
            for link in links[1:]:
                link.close()

    def _gone(self) -> set[str]:
        """Return the workers that were there, and have stopped."""
        return {str(giving.peer) for giving in self._givings if giving.is_over and giving.refused in (None, "stopping")}

    def _offer(self, ready: list[Giving]) -> None:
        if not self._todo:
            self._todo.extend(stream for stream in self._app.streams.streams() if stream not in self._seen)
            self._seen.update(self._todo)
        for giving in ready:
            giving.go_on()
        if not self._todo and all(giving.has_answers for giving in ready):
            self._finish()

    def _finish(self) -> None:
        self.is_over = True
        for giving in self._givings:
            giving.give_back()
        streams = self._app.streams
        left = len(self._todo) + sum(stream not in self._seen for stream in streams.streams())
        if left:
            streams.moves.note_refused(
                next((each.refused for each in self._givings if each.refused), "no worker"), left
            )
        for giving in self._givings:
            if not giving.is_heir:
                giving.close()
        moved = streams.moves.figures()
        if moved["out"] or streams:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in moved["refused"].items())
            log.info(
                "the worker stops; streams that have moved to other workers: %d, that end: %d%s",
                moved["out"],
                len(streams),
                f" ({reasons})" if reasons else "",
            )
