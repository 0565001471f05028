"""The options of channels: of one by its name, and of all whose names begin with the same characters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..config.settings import UNSET, checked
from ..errors import InvalidChannel
from .names import OWN_CHANNEL, check_name
from .replay.since import parse_since

#: Ends a pattern, which stands for all names that begin with what comes before it.
WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """The options of one channel; None where they are not set."""

    public: bool | None = None  #: anyone may read it
    history: int | None = None  #: events that are kept, from 0
    history_seconds: float | None = None  #: for how long, 0 for as long as their number allows
    max_clients: int | None = None  #: clients in each process, from 1
    since: str | None = None  #: where a client without an id begins: see :mod:`.replay.since`
    members: bool | None = None  #: who reads it is known, and told to its readers: see :mod:`.members`

    def over(self, general: ChannelOptions) -> ChannelOptions:
        """Return these options, and those of the general ones that are not set here."""
        given = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        return replace(general, **given) if given else general


_NAMES = [field.name for field in fields(ChannelOptions)]
_NONE = ChannelOptions()


class OptionTable:
    """The options of all channels of an :class:`.SSE`. Any thread may read.

    Nothing is kept for a name but what :meth:`set` is given for it.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, ChannelOptions] = {}
        self._by_prefix: dict[str, ChannelOptions] = {}  # the shortest first
        self._in_force: dict[str, ChannelOptions] = {}  # the same with what shorter prefixes add, the longest first

    def of(self, name: str) -> ChannelOptions:
        """Return the options of a channel: its own, and for each that it lacks that of the longest prefix that has it.

        A reader's own channel has none: no prefix stands for it.
        """
        own = self._by_name.get(name)
        if not self._in_force or name.startswith(OWN_CHANNEL):
            return own or _NONE
        found = next((options for prefix, options in self._in_force.items() if name.startswith(prefix)), None)
        if own is None or found is None:
            return own or found or _NONE
        return own.over(found)

    def set(self, name: str, given: Mapping[str, Any]) -> None:
        """Set options of the channel of this name, once and for all.

        :raises ValueError: where one has another value already; then none is set.
        """
        if given:
            self._by_name[name] = _added(self._by_name.get(name, _NONE), given, f"channel({name!r}")

    def set_for_all(self, pattern: str, given: Mapping[str, Any]) -> None:
        """Set options of all channels whose names match the pattern, once and for all.

        :param pattern: what the names begin with, and ``*``.
        :raises InvalidChannel: where it is none.
        :raises ValueError: where an option has another value already for this pattern; then none is set.
        """
        prefix = check_pattern(pattern)
        table = {**self._by_prefix}
        table[prefix] = _added(table.get(prefix, _NONE), given, f"channels({pattern!r}")
        self._by_prefix = dict(sorted(table.items(), key=lambda each: len(each[0])))
        # Now, as each request asks several times. All prefixes of a name are prefixes of the longest one.
        in_force: dict[str, ChannelOptions] = {}
        for longer, options in self._by_prefix.items():
            shorter = next((general for known, general in in_force.items() if longer.startswith(known)), _NONE)
            in_force = {longer: options.over(shorter), **in_force}
        self._in_force = in_force


def check_pattern(pattern: object) -> str:
    """Return the prefix of a valid pattern of channel names.

    :raises InvalidChannel: where it is no str, does not end with ``*``, or is of characters that no name has.
    """
    if not isinstance(pattern, str) or not pattern.endswith(WILDCARD):
        raise InvalidChannel(
            f"a pattern of channels is what their names begin with, and {WILDCARD!r}, such as 'job/*', unlike "
            f"{pattern!r}: sse.channel() sets the options of a single one"
        )
    prefix = pattern.removesuffix(WILDCARD)
    return check_name(prefix) if prefix else prefix


def check_options(
    *,
    public: object = UNSET,
    history: int | None = None,
    history_seconds: object = None,
    max_clients: int | None = None,
    since: str | None = None,
    members: object = UNSET,
) -> dict[str, Any]:
    """Return the options of a channel that are given, checked: all but :data:`UNSET` and None.

    :raises TypeError: where ``public``, or ``members``, is not a bool.
    :raises ValueError: names the option and the accepted values.
    """
    options: dict[str, Any] = {}
    for name, flag in (("public", public), ("members", members)):
        if flag is not UNSET:
            if not isinstance(flag, bool):
                raise TypeError(f"{name} is True or False, not {flag!r}")
            options[name] = flag
    numbers = {"history": history, "history_seconds": history_seconds, "max_clients": max_clients}
    options |= {name: checked(name, value) for name, value in numbers.items() if value is not None}
    if since is not None:
        parse_since(since)
        options["since"] = since
    return options


def _added(before: ChannelOptions, given: Mapping[str, Any], called: str) -> ChannelOptions:
    for option, value in given.items():
        earlier = getattr(before, option)
        if earlier is not None and earlier != value:
            raise ValueError(
                f"{option}={value!r} contradicts sse.{called}, {option}={earlier!r}), which came before and holds for "
                "good: set it in one place"
            )
    return replace(before, **given)
