"""The contract of brokers, as to members: one join and one leave of each, whoever has it, and whatever dies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial

import pytest

from flask_sse_emitters.brokers import Broker, MemberChange
from flask_sse_emitters.testing import decode
from tests.brokers.contract.brokers import Make, each_of, memory, postgresql, redis
from tests.support.brokers.broker_calls import KEPT, RecordingListener, end, in_threads, listening
from tests.support.client import new_name
from tests.support.told import told
from tests.support.waiting import until

#: Seconds for which a process counts as alive: far longer than any test; and so short that it is over at once.
LONG, SHORT = 600.0, 0.05


#: All that know members.
pytestmark = pytest.mark.parametrize("make", each_of([memory, redis, postgresql]), indirect=True)


def begun(broker: Broker, seconds: float = LONG) -> str:
    return broker.renew_members("", seconds)


def tell(
    broker: Broker,
    holder: str,
    channel: str,
    come: Sequence[str] = (),
    gone: Sequence[str] = (),
    *,
    is_all: bool = False,
    is_quiet: bool = False,
) -> None:
    assert broker.tell_members(holder, [MemberChange(channel, come, gone, is_all, is_quiet, KEPT)]) == [None]


def heard(listener: RecordingListener) -> list[str]:
    """Return what the listener was told, as in ``+alice``."""
    return told(decode(b"".join(listener.texts)))


def test_broker_members_come_and_go_with_an_event_each(broker: Broker) -> None:
    channel, other = new_name(), new_name()
    listener, holder = listening(broker, channel), begun(broker)
    names = ["alice", "bob", "누구", 'a "quoted" \\ name\n', "\U0001f600"]
    tell(broker, holder, channel, names)
    tell(broker, holder, other, ["bob"])
    tell(broker, holder, channel, names[:2], ["nobody"])
    tell(broker, holder, channel, [], ["alice", "nobody"])
    until(lambda: len(listener.frames) == 6, "six events")
    assert heard(listener) == [*(f"+{name}" for name in names), "-alice"]
    assert [frame.offset for frame in listener.frames] == [1, 2, 3, 4, 5, 6]
    assert listener.frames[0].name == "join"
    assert listener.texts[0] == b'event: join\ndata: {"identity": "alice"}\n\n'
    assert listener.texts[-1] == b'event: leave\ndata: {"identity": "alice"}\n\n'
    assert sorted(broker.members(channel)) == sorted(names[1:])
    assert broker.members(other) == ["bob"]
    assert broker.members(new_name()) == []


def test_broker_members_of_two_processes_come_and_go_once(broker: Broker, make: Make) -> None:
    if not broker.is_shared:
        return
    channel = new_name()
    listener = listening(broker, channel)
    with closing(make()) as other:
        brokers = [(each, begun(each)) for each in (broker, other)]
        names = [f"user {number}" for number in range(20)]
        in_threads([partial(tell, each, holder, channel, names) for each, holder in brokers])
        assert sorted(broker.members(channel)) == sorted(other.members(channel)) == sorted(names)
        tell(*brokers[0], channel, [], names)
        assert sorted(broker.members(channel)) == sorted(names)
        tell(*brokers[1], channel, [], names)
        assert broker.members(channel) == []
        tell(*brokers[0], channel, ["last"])
        until(lambda: heard(listener)[-1:] == ["+last"], "all events")
        assert sorted(heard(listener)[:20]) == sorted(f"+{name}" for name in names)
        assert heard(listener)[20:-1] == [f"-{name}" for name in names]


def test_broker_members_that_are_all_take_the_place_of_others(broker: Broker) -> None:
    channel = new_name()
    listener, holder = listening(broker, channel), begun(broker)
    tell(broker, holder, channel, ["a", "b", "c"])
    tell(broker, holder, channel, ["b", "d"], is_all=True)
    until(lambda: len(listener.frames) == 6, "six events")
    assert (heard(listener)[:4], sorted(heard(listener)[4:])) == (["+a", "+b", "+c", "+d"], ["-a", "-c"])
    assert sorted(broker.members(channel)) == ["b", "d"]


def test_broker_members_that_are_told_quietly_publish_nothing(broker: Broker) -> None:
    channel = new_name()
    holder = begun(broker)
    tell(broker, holder, channel, ["a"], is_quiet=True)
    assert broker.members(channel) == ["a"]
    assert broker.state(channel).newest == 0
    tell(broker, holder, channel, [], ["a"])
    assert broker.state(channel).newest == 1


def test_broker_members_do_not_begin_a_complete_channel_anew(broker: Broker) -> None:
    channel = new_name()
    holder = begun(broker)
    tell(broker, holder, channel, ["a", "b"])
    end(broker, channel)
    tell(broker, holder, channel, ["c"], ["a"])
    state = broker.state(channel)
    assert (state.is_complete, state.newest) == (True, 3)
    assert sorted(broker.members(channel)) == ["b", "c"]


def test_broker_members_of_a_dead_process_leave_once(broker: Broker, make: Make) -> None:
    """But those that another process has as well."""
    if not broker.is_shared:
        return
    channel = new_name()
    listener = listening(broker, channel)
    many = [f"user {number:04}" for number in range(1200)]  # more than go in one step
    with closing(make()) as dead, closing(make()) as third:
        tell(broker, holder := begun(broker), channel, ["alice"])
        tell(dead, begun(dead, SHORT), channel, ["alice", "bob", *many])
        other = begun(third)
        until(lambda: broker.members(channel) == ["alice"], "the end of its time")
        in_threads([lambda: broker.renew_members(holder, LONG), lambda: third.renew_members(other, LONG)])
        until(lambda: len(listener.frames) >= 2 * len(many) + 3, "all events")
        assert heard(listener)[:2] == ["+alice", "+bob"]
        assert sorted(heard(listener)[len(many) + 2 :]) == ["-bob", *(f"-{each}" for each in many)]
        broker.renew_members(holder, LONG)
        third.renew_members(other, LONG)
        assert broker.state(channel).newest == 2 * len(many) + 3


def test_broker_members_of_a_process_that_was_taken_for_dead_come_again(broker: Broker, make: Make) -> None:
    if not broker.is_shared:
        return
    channel = new_name()
    listener = listening(broker, channel)
    with closing(make()) as late:
        holder, before = begun(broker), begun(late, SHORT)
        tell(late, before, channel, ["bob"])
        until(lambda: not broker.members(channel), "the end of its time")
        assert broker.renew_members(holder, LONG) == holder
        after = late.renew_members(before, LONG)
        assert after != before, "it is to tell all again"
        assert after.partition(".")[0] == before.partition(".")[0], "nothing is lost"
        assert late.renew_members(after, LONG) == after
        tell(late, after, channel, ["bob"], is_all=True)
        tell(late, before, channel, is_all=True)
        until(lambda: len(listener.frames) == 3, "three events")
        assert heard(listener) == ["+bob", "-bob", "+bob"]
        assert broker.members(channel) == ["bob"]


def test_broker_members_stay_where_all_processes_were_away(broker: Broker, make: Make) -> None:
    """As in an outage of the broker: the first that is back spares the others."""
    if not broker.is_shared:
        return
    channel = new_name()
    with closing(make()) as other:
        first, second = begun(broker, SHORT), begun(other, SHORT)
        tell(broker, first, channel, ["a"])
        tell(other, second, channel, ["b"])
        until(lambda: not broker.members(channel), "the end of their time")
        assert broker.renew_members(first, LONG, was_away=True) == first
        assert sorted(broker.members(channel)) == ["a", "b"]
        assert other.renew_members(second, LONG, was_away=True) == second
        assert broker.state(channel).newest == 2
