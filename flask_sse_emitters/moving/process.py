"""The part of one worker in the move of streams: it takes those of others, until it stops and gives its own away."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Container, Iterable
from contextlib import suppress

from ..runtime.fork import reset_after_fork
from ..runtime.scheduler import SCHEDULER
from .app import APPS, MovingApp
from .arriving import Arriving
from .departing import Departing
from .meeting.folder import Folder, masters, others
from .meeting.link import Link, LinkLost, Listener, connect
from .meeting.siblings import Siblings

log = logging.getLogger("flask_sse_emitters.moving")

#: A worker that stops has so long to give its channels in memory: while this one loads the app, and from when it is
#: shown on. Who wants something of them waits.
LOAD_SECONDS, SHOWN_SECONDS = 60.0, 2.0


class Mover:
    """The part of this worker among those of its gunicorn.

    All methods only on the thread that writes, but for the properties.
    """

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._sockets: frozenset[int] = frozenset()
        self._is_shown = False
        self._shown_at = 0.0
        self._listeners: list[Listener] = []
        self._folders: list[Folder] = []
        self._siblings: Siblings | None = None
        self._arriving: list[Arriving] = []
        self._failure = ""  # of the last look, which is logged once
        self._departing: list[Departing] | None = None  # once the worker stops

    @property
    def is_leaving(self) -> bool:
        """Whether streams are being given away, or may be soon."""
        if self._departing is None:
            return False
        return any(not each.is_over for each in self._departing) or any(not each.is_over for each in self._arriving)

    @property
    def has_settled(self) -> bool:
        """Whether workers that stop have had the time to find this one, if it is shown to them."""
        return not self._listeners or SCHEDULER.clock() > self._shown_at + SHOWN_SECONDS

    def expect(self) -> None:
        """Have channels in memory wait for those of a worker that stops, if there is one. Before the first request."""
        in_memory = [app.memory for app in APPS if app.moves and app.memory is not None]
        if in_memory and sys.platform == "linux" and not self._is_shown and any(map(others, masters())):
            for broker in in_memory:
                broker.inheritance.expect(LOAD_SECONDS)

    def note_sockets(self, listening: Iterable[int]) -> None:
        """Note at which sockets gunicorn takes connections, by their descriptors. Before :meth:`begin`; any thread."""
        self._sockets = frozenset(os.fstat(descriptor).st_ino for descriptor in listening if descriptor >= 0)

    def begin(self) -> None:
        """Show this worker to those that stop, if any app moves its streams, and the system lets it. Idempotent."""
        if self._is_shown or sys.platform != "linux" or not any(app.moves for app in APPS):
            return
        self._is_shown, self._shown_at = True, SCHEDULER.clock()
        for app in APPS:
            if app.memory is not None:
                app.memory.inheritance.expect_soon(SHOWN_SECONDS)
        try:
            for master in masters():
                with suppress(ProcessLookupError):  # the old master has ended
                    folder = Folder(master)
                    self._folders.append(folder)
                    self._listeners.append(Listener(folder))
            self._siblings = Siblings(self._folders[0], self._sockets) if self._folders else None
        except OSError as error:
            log.warning("streams do not move to other workers, nor from them: %s", error)
            self.end()

    def look(self) -> None:
        """Take connections of workers that stop. Called a few times a second."""
        self._arriving = [arriving for arriving in self._arriving if not arriving.is_over]
        failure = ""
        for listener in self._listeners:
            try:
                while (link := listener.accept()) is not None:
                    self._arriving.append(Arriving(link))
            except OSError as error:  # LinkLost, too
                failure = str(error)
        if failure and failure != self._failure:
            log.warning("a worker that stops cannot give its streams: %s", failure)
        self._failure = failure

    def leave(self, workers: int, until: float) -> None:
        """Give all streams away, as far as they can move. Idempotent; goes on in the background.

        :param workers: how many gunicorn was told to start.
        :param until: when to give up, by the scheduler's clock.
        """
        if self._departing is not None:
            return
        for listener in self._listeners:
            listener.leave()
        for app in APPS:
            app.streams.moves.is_leaving = True
        siblings = self._siblings
        if siblings is None:
            self._departing = []
            return
        self._departing = [
            self._depart(app, siblings, workers, until) for app in APPS if app.moves and app.has_something
        ]

    def _depart(self, app: MovingApp, siblings: Siblings, workers: int, until: float) -> Departing:
        known: set[str] = set()  # workers to which there was a connection

        def may_come(gone: Container[str]) -> bool:
            return siblings.may_come(known, gone, workers)

        return Departing(app, lambda: self._links(siblings, known), may_come, workers, until)

    def end(self) -> None:
        """Leave the folders, and those who have got something. Idempotent."""
        for departing in self._departing or ():
            departing.close()
        for listener in self._listeners:
            listener.close()
        for folder in self._folders:
            folder.close()
        self._listeners, self._folders = [], []

    def _links(self, siblings: Siblings, known: set[str]) -> list[Link]:
        """Connect to workers that are ready, and not known yet."""
        links = []
        for name in set(siblings.ready) - known:
            try:
                link = connect(self._folders[0], name)
            except LinkLost as lost:
                log.warning("%s: it is given no streams", lost)
                known.add(name)
            else:
                if link is not None:
                    known.add(name)
                    links.append(link)
        return links


#: The part of this process.
MOVER = Mover()
