"""Reading the logs of a client's channels, a page at a time. It waits for nothing, and asks no broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge

from ...brokers.event_log import Log
from ...streams.interfaces import Output
from ...wire.frame import BATCH_BYTES, Frame, count_events
from .cursor import Cursor
from .gap import encode_gap
from .pages import Page, PageCache


class LogReader:
    """Reads the logs of one client's channels, in the order in which their events were published.

    A gap is announced with what follows it: alone, it might have grown before that is read. The end of a channel is the
    last thing on its page, so that the stream can end before anything else is read.

    :param logs: of the channels, in the order of the stream.
    :param cursor: where the client is with what has been written.
    :param tells_gaps: whether a gap is announced.
    :ivar offsets: how far each log has been read.
    :ivar lost: where it is still to be announced that something is lost: the id that the client came with.
    """

    __slots__ = ("_cursor", "_pages", "_tells_gaps", "logs", "lost", "offsets")

    def __init__(
        self,
        logs: Sequence[Log],
        offsets: list[int],
        lost: str | None,
        cursor: Cursor,
        pages: PageCache,
        *,
        tells_gaps: bool = True,
    ) -> None:
        self.logs = logs
        self.offsets = offsets
        self.lost = lost
        self._cursor = cursor
        self._pages = pages
        self._tells_gaps = tells_gaps
        for index, log in enumerate(logs):
            cursor.move(index, log, offsets[index])

    def behind(self, channels: Iterable[int], upto: Sequence[int]) -> list[int]:
        """Return which of these channels have not been read up to these offsets."""
        return [index for index in channels if self.offsets[index] < upto[index]]

    def take_gap(self) -> Output | None:
        """Announce now what is lost; None where nothing is. Only where no log is behind."""
        lost, self.lost = self.lost, None
        return None if lost is None else Output(encode_gap(lost, self.logs, self._cursor), 0, lost)

    def read(self, behind: Sequence[int], upto: tuple[int, ...], *, is_alone: bool) -> Output | Callable[[], Output]:
        """Read the next page: the announcement of a gap, where there is one, and then events.

        :param behind: the channels that are to be read.
        :param upto: the last offset that is wanted in each log.
        :param is_alone: the client gets nothing from lists meanwhile.
        :return: the page, or a function that makes it once it is written, under the lock of the stream: what lists
            bring before that moves the cursor.
        """
        at = tuple(zip(self.logs, self.offsets, strict=True))
        key = (at, tuple(self._cursor.ids) if len(at) > 1 else ())  # at an end, clients may have one of two ids
        if is_alone and self.lost is None and all(log.oldest <= offset + 1 for log, offset in at):
            page = self._pages.get(key, upto)
            if page is not None:
                for index in behind:
                    self.offsets[index] = page.offsets[index]
                    self._cursor.move_to(index, page.ids[index], ends=index == page.ended)
                return page.output
        frames, skipped = self._read_page(behind, upto)
        lost, self.lost = self.lost, None
        if skipped or lost is not None or not is_alone:
            return partial(self._encode, frames, lost, skipped)
        ended = next((index for index, frame in frames[-1:] if frame.is_end), None)
        output = self._encode(frames, None, {})
        page = Page(output, tuple(self.offsets), tuple(self._cursor.ids), upto, ended)
        self._pages.put(key, page)
        return page.output

    def _read_page(self, behind: Sequence[int], upto: Sequence[int]) -> tuple[list[tuple[int, Frame]], dict[int, int]]:
        """Read as many events as a page holds, and move on behind them.

        :return: the events with the indexes of their channels; and for each channel that does not keep its next events
            the offset of the last one that it lacks.
        """
        events: list[Iterator[tuple[int, Frame]]] = []
        skipped: dict[int, int] = {}
        line_bytes = self._cursor.line_bytes if len(self.logs) > 1 else 0
        share = BATCH_BYTES // max(1, len(behind))  # of each channel: it would be far too much to read a page of each
        for index in behind:
            frames = self.logs[index].after(self.offsets[index], upto[index], share, line_bytes)
            first = frames[0].offset if frames else upto[index] + 1
            if first > self.offsets[index] + 1:
                skipped[index] = self.offsets[index] = first - 1
            more = share if len(behind) > 1 else 0
            events.append(_read_on(self.logs[index], index, frames, upto[index], more, line_bytes))
        page: list[tuple[int, Frame]] = []
        room = BATCH_BYTES
        for index, frame in merge(*events, key=lambda each: each[1].at):
            room -= line_bytes + len(frame.payload)
            if room < 0 and page:
                break
            page.append((index, frame))
            self.offsets[index] = frame.offset
            if frame.is_end:
                break
        return page, skipped

    def _encode(self, frames: Sequence[tuple[int, Frame]], lost: str | None, skipped: Mapping[int, int]) -> Output:
        """Join a page, and move the cursor behind it.

        :param frames: the events, with the indexes of their channels.
        :param lost: the id that the client came with, where something after it is lost.
        :param skipped: the offset of the last event that is lost, by channel.
        """
        cursor = self._cursor
        requested = cursor.text() if skipped and lost is None and self._tells_gaps else lost
        for index, offset in skipped.items():
            cursor.move(index, self.logs[index], offset)
        written = [] if requested is None else [encode_gap(requested, self.logs, cursor)]
        if len(self.logs) > 1:
            written += [cursor.with_ids(index, frame).payload for index, frame in frames]
        else:
            written += [frame.payload for _, frame in frames if not frame.is_end]
            for index, frame in frames[-1:]:
                cursor.move(index, self.logs[index], frame.offset)
                cursor.note(index, ends=frame.is_end)
        return Output(b"".join(written), count_events([frame for _, frame in frames]), requested, is_replay=True)


def _read_on(
    log: Log, index: int, frames: list[Frame], upto: int, room: int, extra: int
) -> Iterator[tuple[int, Frame]]:
    """Iterate over events of a channel, reading more as they are asked for.

    It ends where the next one is no longer kept: the next page announces that.

    :param index: of the channel; comes with each event.
    :param frames: the first of the events.
    :param upto: the last offset that is wanted.
    :param room: bytes that are read at a time; one event in any case.
    :param extra: bytes that each event takes besides its own.
    """
    while frames:
        for frame in frames:
            yield index, frame
        offset = frame.offset
        frames = log.after(offset, upto, room, extra)
        if frames and frames[0].offset > offset + 1:
            return
