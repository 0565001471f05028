"""Asking Redis: all scripts that publish nothing of their caller's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import redis

from ...errors import BrokerUnavailable
from ..base import MemberChange
from ..event_ids import new_epoch
from ..listening.members import BaseMembers
from ..remote.green import require_patched_sockets
from .connections.client import Clients
from .connections.deadline import within
from .errors import diagnose, error_text
from .health import Health
from .messages import KeyNames, member_arguments, milliseconds, read_arguments
from .scripts import Script
from .scripts.members import CHANNELS_OF, FORGET, LIST, LIVING, NOTE, RENEW, TELL
from .subscriber import Subscriber

T = TypeVar("T")


class Asking:
    """Runs scripts, and reads their answers. Any thread may call, and waits for Redis.

    :param seconds: how long that may take.
    :param subscriber: knows the newest events.
    """

    def __init__(
        self, clients: Clients, names: KeyNames, seconds: float, health: Health, subscriber: Subscriber
    ) -> None:
        self._clients = clients
        self._names = names
        self._seconds = seconds
        self._health = health
        self._subscriber = subscriber

    def ask(
        self, wanted: str, read: Callable[[Any], T], script: Script, keys: Sequence[str], arguments: Sequence[Any] = ()
    ) -> T:
        """Run a script.

        :param wanted: what Redis should do, for the error.
        :param read: returns what the answer means, or raises a :class:`ValueError`.
        :raises BrokerUnavailable: where Redis cannot be reached in time, or answers something else.
        """
        require_patched_sockets("Redis")
        try:
            with within(self._seconds):
                return read(self._clients.get().run(script, keys, arguments))
        except (redis.RedisError, OSError, ValueError) as error:
            advice = self._health.advice(diagnose(error), keys)
            raise BrokerUnavailable(f"Redis did not {wanted} ({error_text(error)}): {advice}") from error

    def ask_of(
        self, channel: str, wanted: str, read: Callable[[Any], T], script: Script, arguments: Sequence[Any] = ()
    ) -> T:
        """Run a script that reads a channel first: see :meth:`ask`."""
        first = read_arguments(self._names.announcements(channel), self._subscriber.known(channel))
        return self.ask(wanted, read, script, self._names.keys(channel), [*first, *arguments])


class Members(BaseMembers):
    """The members of this process, in Redis: see :class:`.BaseMembers`."""

    def __init__(self, asking: Asking, names: KeyNames, subscriber: Subscriber) -> None:
        self._asking = asking
        self._names = names
        self._subscriber = subscriber
        self._noted: tuple[str, frozenset[str]] = "", frozenset()  # the channels that this holder may have members of

    def list(self, channel: str) -> list[str]:
        """Return the members of a channel: see :meth:`.Broker.members`."""
        wanted = "say who the members are"
        holders = self._asking.ask(wanted, _texts, LIVING, [self._names.holders])
        keys = self._names.members(channel)[:1]
        return [json.loads(each) for each in dict.fromkeys(self._asking.ask(wanted, _texts, LIST, keys, holders))]

    def _renew(self, holder: str, seconds: float, *, was_away: bool) -> tuple[str, Mapping[str, Sequence[str]]]:
        new, keys = new_epoch() + new_epoch(), [self._names.holders, self._names.memory]
        arguments = [holder, new, milliseconds(seconds), int(was_away), new_epoch()]
        memory, lives, dead = self._asking.ask("renew the members", list, RENEW, keys, arguments)
        renewed = holder if lives else f"{memory.decode()}.{new}"
        return renewed, {name: self._channels_of(name) for name in _texts(dead)}

    def _tell(self, holder: str, change: MemberChange) -> bool:
        if change.come:
            self._note(holder, change.channel)
        keys = [*self._names.keys(change.channel), *self._names.members(change.channel, holder)]
        known = self._subscriber.known(change.channel)
        first = read_arguments(self._names.announcements(change.channel), known)
        return self._asking.ask("note the members", bool, TELL, keys, [*first, *member_arguments(change)])

    def _note(self, holder: str, channel: str) -> None:
        noted = self._noted[1] if self._noted[0] == holder else frozenset[str]()
        if channel not in noted:
            self._asking.ask("note the members", bool, NOTE, [self._names.holder + holder], [channel])
            self._noted = holder, noted | {channel}

    def _channels_of(self, holder: str) -> Sequence[str]:
        return self._asking.ask("say whose members they are", _texts, CHANNELS_OF, [self._names.holder + holder])

    def _forget(self, holder: str) -> None:
        self._asking.ask("forget a process", bool, FORGET, [self._names.holders, self._names.holder + holder], [holder])


def _texts(answer: Sequence[bytes]) -> Sequence[str]:
    return [each.decode() for each in answer]
