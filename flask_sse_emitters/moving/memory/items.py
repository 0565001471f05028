r"""What is kept of a channel, what is asked, and what is answered, as JSON.

A channel is one item, which says how many follow of it: each event that is kept, then each key. Times are of the wall
clock, in seconds, because the two processes share no other; null is long ago. Events are without their id's line::

    {"channel": "orders", "epoch": "x7Kq2", "newest": 41, "former": [], "events": 2, "keys": 1, ...}
    {"id": "x7Kq2-40", "at": 1764433801.5, "name": "message", "text": "data: 7\n\n"}
    {"id": "x7Kq2-41", "at": 1764433802.5, "name": "message", "text": "data: 8\n\n"}
    {"key": "order-8", "id": "x7Kq2-41", "at": 1764433802.5}
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from ...brokers.base import MemberChange, Publication, Published, RunLost
from ...brokers.event_ids import Position, read_id
from ...brokers.event_log import Alias, Bounds, LogState, with_id
from ...brokers.memory.moves.handover import Answer, Do, Request
from ...brokers.memory.record_state import Lease, RecordState
from ...errors import BrokerUnavailable
from ...wire.frame import Frame, without_id
from ..protocol.stream_record import take


class WallTimes:
    """Translates times of this process's clock to those of the wall clock, and back.

    :param clock: of this process.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._ahead = time.time() - clock()

    def to_wall(self, at: float) -> float | None:
        """Return a time as it travels."""
        return None if at == -math.inf else at + self._ahead

    def of_wall(self, found: Any) -> float:
        """Return a time that has travelled.

        :raises ValueError: where it is none.
        """
        return -math.inf if found is None else _number(found) - self._ahead


def items_of_state(state: RecordState, times: WallTimes) -> Iterator[dict[str, Any]]:
    """Yield the items of a channel."""
    log, run = state.log, state.run
    yield {
        "channel": state.name,
        "epoch": log.epoch,
        "newest": log.newest,
        "last": times.to_wall(log.last),
        "former": [[each.epoch, each.offset] for each in log.former],
        "aliases": [[each.epoch, each.shift, each.last] for each in log.aliases],
        "first": log.first,
        "end": log.end,
        "is_complete": log.is_complete,
        "log_bounds": [*log.bounds],
        "bounds": [*state.bounds],
        "run": None if run is None else [run.name, run.seconds, times.to_wall(run.until)],
        "published": times.to_wall(state.published_at),
        "used": times.to_wall(state.used_at),
        "members": [*state.members],
        "member_seconds": state.member_seconds,
        "events": len(log.frames),
        "keys": len(state.keys),
    }
    for frame in log.frames:
        yield {"id": frame.id, "at": times.to_wall(frame.at), **_event(without_id(frame))}
    for key, (at, event_id) in state.keys.items():
        yield {"key": key, "id": event_id, "at": times.to_wall(at)}


class StateReader:
    """Puts channels together from their items."""

    def __init__(self, times: WallTimes) -> None:
        self._times = times
        self._head: Mapping[str, Any] = {}
        self._frames: list[Frame] = []
        self._keys: dict[str, tuple[float, str]] = {}

    def read(self, item: Mapping[str, Any]) -> RecordState | None:
        """Read one more item. Return the channel that is complete with it.

        :raises ValueError: where it is none.
        """
        if "channel" in item:
            self._head, self._frames, self._keys = item, [], {}
        elif "key" in item:
            self._keys[take(item, "key", str)] = self._times.of_wall(item.get("at")), take(item, "id", str)
        else:
            at = self._times.of_wall(item.get("at"))
            self._frames.append(with_id(_frame(item), _position(take(item, "id", str)), at))
        wanted = take(self._head, "events", int), take(self._head, "keys", int)
        return self._state() if wanted == (len(self._frames), len(self._keys)) else None

    def _state(self) -> RecordState:
        head, times = self._head, self._times
        run = take(head, "run", list, None)
        return RecordState(
            name=take(head, "channel", str),
            log=LogState(
                epoch=take(head, "epoch", str),
                newest=take(head, "newest", int),
                last=times.of_wall(head.get("last")),
                former=tuple(Position(str(epoch), int(offset)) for epoch, offset in take(head, "former", list)),
                aliases=tuple(
                    Alias(str(epoch), int(shift), int(last)) for epoch, shift, last in take(head, "aliases", list)
                ),
                first=take(head, "first", int),
                end=take(head, "end", int),
                is_complete=take(head, "is_complete", bool),
                bounds=_bounds(take(head, "log_bounds", list)),
                frames=self._frames,
            ),
            bounds=_bounds(take(head, "bounds", list)),
            keys=self._keys,
            run=None if run is None else _lease(run, times),
            published_at=times.of_wall(head.get("published")),
            used_at=times.of_wall(head.get("used")),
            members=_texts(head, "members"),
            member_seconds=_number(head.get("member_seconds")),
        )


def item_of_event(channel: str, frame: Frame) -> dict[str, Any]:
    """Return the item of an event that a channel has got."""
    return {"channel": channel, "id": frame.id, **_event(without_id(frame))}


def read_event(item: Mapping[str, Any]) -> tuple[str, Frame, str]:
    """Return the channel of an event, its frame, and its id.

    :raises ValueError: where it is none.
    """
    return take(item, "channel", str), _frame(item), take(item, "id", str)


def items_of_request(request: Request) -> Iterator[dict[str, Any]]:
    """Yield the items of what is to be done; each event is one."""
    change = request.change
    bounds = request.bounds if change is None else change.bounds
    yield {
        "do": request.do,
        "channel": request.channel,
        "run": request.run,
        "seconds": request.seconds,
        "bounds": None if bounds is None else [*bounds],
        "change": None if change is None else _change(change),
    }
    for each in request.publications:
        kept = None if each.bounds is None else [*each.bounds]
        yield {"bounds": kept, "key": each.key, "run": each.run, **_event(each.frame)}


def read_request(items: Sequence[Mapping[str, Any]]) -> Request:
    """Read what is to be done.

    :raises ValueError: where it is nothing of this protocol.
    """
    if not items or items[0].get("do") not in get_args(Do):
        raise ValueError("a request says what to do")
    head, channel = items[0], take(items[0], "channel", str)
    publications = [
        Publication(
            channel, _frame(each), _bounds_or_none(each), take(each, "key", str, None), take(each, "run", str, None)
        )
        for each in items[1:]
    ]
    seconds, bounds = _number(head.get("seconds")), _bounds_or_none(head)
    change = _read_change(channel, take(head, "change", dict), bounds) if head["do"] == "tell_members" else None
    return Request(head["do"], channel, publications, take(head, "run", str), seconds, bounds, change)


def items_of_answer(answer: Answer | BrokerUnavailable) -> list[dict[str, Any]]:
    """Return the items of an answer; one for each event."""
    if isinstance(answer, BrokerUnavailable):
        return [{"error": str(answer), "may_be_published": answer.may_be_published}]
    if isinstance(answer, str | bool):
        return [{"value": answer}]
    return [_result(each) for each in answer]


def read_answer(items: Sequence[Mapping[str, Any]], request: Request) -> Answer:
    """Read the answer to a request.

    :raises BrokerUnavailable: where that is the answer.
    :raises ValueError: where it is none.
    """
    if items and "error" in items[0]:
        raise BrokerUnavailable(take(items[0], "error", str), may_be_published=take(items[0], "may_be_published", bool))
    if request.do == "publish_many":
        if len(items) != len(request.publications):
            raise ValueError(f"{len(items)} answers came for {len(request.publications)} events")
        return [_published(item, request.channel) for item in items]
    if request.do == "members":
        return [take(item, "member", str) for item in items]
    value = items[0].get("value") if items else None
    if not isinstance(value, str | bool):
        raise ValueError("an answer has a value")
    return value


def _result(result: Published | Exception | str) -> dict[str, Any]:
    if isinstance(result, str):
        return {"member": result}
    if isinstance(result, Published):
        return {"id": result.id, "is_new": result.is_new}
    if isinstance(result, RunLost):
        return {"is_lost": True}
    return {"failure": str(result), "may_be_published": getattr(result, "may_be_published", True)}


def _published(item: Mapping[str, Any], channel: str) -> Published | Exception:
    if "failure" in item:
        return BrokerUnavailable(take(item, "failure", str), may_be_published=take(item, "may_be_published", bool))
    return RunLost(channel) if "is_lost" in item else Published(take(item, "id", str), take(item, "is_new", bool))


def _change(change: MemberChange) -> dict[str, Any]:
    return {
        "come": [*change.come],
        "gone": [*change.gone],
        "is_all": change.is_all,
        "is_quiet": change.is_quiet,
    }


def _read_change(channel: str, found: Mapping[str, Any], bounds: Bounds | None) -> MemberChange:
    come, gone = _texts(found, "come"), _texts(found, "gone")
    return MemberChange(channel, come, gone, take(found, "is_all", bool), take(found, "is_quiet", bool), bounds)


def _texts(item: Mapping[str, Any], name: str) -> list[str]:
    return [str(each) for each in take(item, name, list)]


def _event(frame: Frame) -> dict[str, Any]:
    return {"name": frame.name, "text": frame.payload.decode(errors="surrogateescape")}


def _frame(item: Mapping[str, Any]) -> Frame:
    text = take(item, "text", str)
    return Frame(text.encode(errors="surrogateescape"), take(item, "name", str, None))


def _position(text: str) -> Position:
    found = read_id(text)
    if found is None:
        raise ValueError(f"{text!r} is no id of an event")
    return found


def _bounds(found: Sequence[Any]) -> Bounds:
    events, seconds = found
    return Bounds(int(events), _number(seconds))


def _bounds_or_none(item: Mapping[str, Any]) -> Bounds | None:
    found = take(item, "bounds", list, None)
    return None if found is None else _bounds(found)


def _lease(found: Sequence[Any], times: WallTimes) -> Lease:
    name, seconds, until = found
    return Lease(str(name), _number(seconds), times.of_wall(until))


def _number(found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"{found!r} is no number")
    return float(found)
