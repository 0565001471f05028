"""Pages of logs that clients share: those that come from one position get the same bytes, made once."""

from __future__ import annotations

from typing import NamedTuple

from ...runtime.locks import native_lock
from ...runtime.scheduler import SCHEDULER, Scheduler
from ...streams.interfaces import Output
from ...wire.frame import BATCH_BYTES

#: A page that no client has asked for in this time is dropped.
PAGE_SECONDS = 5.0

#: At most this many pages are kept.
MAX_PAGES = 64


class Page(NamedTuple):
    """Some events of the logs of one or more channels, ready to be written."""

    output: Output
    offsets: tuple[int, ...]  #: where it ends in each log
    ids: tuple[bytes, ...]  #: the ids of the channels there, as a client has them
    upto: tuple[int, ...]  #: where it had to end at the latest
    ended: int | None  #: the index of the channel that ends with it


class PageCache:
    """Pages by the position at which they begin. Any thread may call, and none waits.

    :param scheduler: calls back when pages may be dropped.
    """

    def __init__(self, scheduler: Scheduler = SCHEDULER) -> None:
        self._lock = native_lock()
        self._scheduler = scheduler
        self._pages: dict[object, tuple[Page, float]] = {}  # with the time of the last request, in the order of these
        self.built = 0  #: pages, since the beginning

    def __len__(self) -> int:
        return len(self._pages)

    def get(self, key: object, upto: tuple[int, ...]) -> Page | None:
        """Return the page that begins at this position, if it is as long as one can be that ends there.

        :param upto: the last offset in each log that is wanted.
        """
        with self._lock:
            page, _ = self._pages.get(key, (None, 0.0))
            if page is None or (page.upto != upto and len(page.output.payload) < BATCH_BYTES // 2):
                return None
            del self._pages[key]
            self._pages[key] = page, self._scheduler.clock()
            return page

    def put(self, key: object, page: Page) -> None:
        """Keep a page that begins at this position."""
        now = self._scheduler.clock()
        with self._lock:
            is_first = not self._pages
            self._pages.pop(key, None)
            self._pages[key] = page, now
            self.built += 1
            if len(self._pages) > MAX_PAGES:
                del self._pages[next(iter(self._pages))]
        if is_first:
            self._scheduler.call_at(now + PAGE_SECONDS, self._drop_unused)

    def _drop_unused(self) -> None:
        now = self._scheduler.clock()
        with self._lock:
            while self._pages:
                key, (_, asked_at) = next(iter(self._pages.items()))
                if asked_at + PAGE_SECONDS > now:
                    break
                del self._pages[key]
            has_more = bool(self._pages)
        if has_more:
            self._scheduler.call_at(now + PAGE_SECONDS, self._drop_unused)
