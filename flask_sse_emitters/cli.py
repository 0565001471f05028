"""``flask sse``: publish to an app's channels, and read them, from a shell."""

from __future__ import annotations

import json
import logging
import os
import selectors
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import click
from flask import current_app
from flask.cli import AppGroup

from .brokers import Broker
from .channel import MOST_CHANNELS, Channel, Channels, name_for_operator
from .emitter import SseEmitter
from .errors import BrokerUnavailable, InvalidChannel, InvalidEvent, SseError
from .posting import parse_json
from .scheduler import Bell
from .settings import EXTENSION, Settings

#: What a shell shows of a process that an interrupt has ended.
INTERRUPTED = 130

commands = AppGroup("sse", help="Publish to channels, and read them, through the broker at SSE_BROKER_URL.")


def _check_names(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    try:
        return name_for_operator(value) if isinstance(value, str) else tuple(map(name_for_operator, value))
    except InvalidChannel as error:
        raise click.BadParameter(str(error)) from error


@commands.command()
@click.argument("channel", callback=_check_names)
@click.argument("data")
@click.option("--event", metavar="NAME", help='The event\'s name; without one it is "message".')
@click.option("--json", "as_json", is_flag=True, help="DATA is JSON: a string in it goes as its text.")
@click.option("--key", help="Makes another attempt safe: within 5 minutes only one event with it is published.")
@click.option("--retry", type=click.IntRange(min=0), metavar="MS", help="Until clients reconnect from now on.")
def publish(channel: str, data: str, event: str | None, as_json: bool, key: str | None, retry: int | None) -> None:
    """Publish DATA, a text, to all clients of CHANNEL, and print the event's id.

    CHANNEL may be "~IDENTITY", which is the private channel of a reader.

    "-" reads DATA from stdin, as UTF-8 and without the line end that ends it. After "--" DATA may begin with a dash.
    """
    channels, _ = _shared_channels()
    text = _read_stdin() if data == "-" else data
    value = _parse(text) if as_json else text
    with _warnings_to(logging.NullHandler()), _clean_errors():
        click.echo(channels.publish(channel, value, event, retry, key))
        _say_who_reads(channel, channels)


@commands.command()
@click.argument("names", metavar="CHANNEL...", callback=_check_names, nargs=-1, required=True)
@click.option("--last-event-id", metavar="ID", help="Begin after it: an id of a stream of the same channels, in order.")
@click.pass_context
def listen(context: click.Context, names: tuple[str, ...], last_event_id: str | None) -> None:
    """Print what clients of CHANNEL... get, as it comes: each event as on the wire, with a blank line after it.

    At first comes an id alone: where the stream begins. An event named "gap" says that some are no longer to be had.
    While the broker is away, that is said on stderr, and what was missed comes when it is back.

    Ctrl-C ends it, with exit code 130. Once nobody reads its output, it ends with 0.
    """
    channels, settings = _shared_channels()
    names = tuple(dict.fromkeys(names))
    if len(names) > MOST_CHANNELS:
        raise click.UsageError(f"{len(names)} channels: one stream carries {MOST_CHANNELS} at most")
    try:
        with _clean_errors():
            _print_stream(channels, names, last_event_id, settings.publish_seconds)
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    except BrokenPipeError:
        context.exit(0)


def _shared_channels() -> tuple[Channels, Settings]:
    state = current_app.extensions[EXTENSION]
    channels: Channels = state.channels
    settings: Settings = state.settings
    if not channels.broker.is_shared:
        scheme = settings.broker_url.partition("://")[0]
        raise click.ClickException(
            f"SSE_BROKER_URL is {scheme}://, which keeps the channels of each process apart, and this process has no "
            "clients: set SSE_BROKER_URL, in the app's config, to a broker that all processes share, such as "
            "redis://localhost:6379/0"
        )
    return channels, settings


def _read_stdin() -> str:
    data = sys.stdin.buffer.read()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is not UTF-8: {error}") from error
    return text.removesuffix("\n").removesuffix("\r")


def _parse(text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise click.BadParameter(f"no JSON at {where}: {error.msg}", param_hint="'DATA'") from error
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"no JSON that can be read: {error}", param_hint="'DATA'") from error


def _say_who_reads(channel: str, channels: Channels) -> None:
    if type(channels.broker).clients_elsewhere is Broker.clients_elsewhere:  # it knows of none
        return
    with suppress(BrokerUnavailable):
        count = Channel(channel, lambda: channels).subscribers()
        click.echo("1 client reads it" if count == 1 else f"{count} clients read it", err=True)


@contextmanager
def _clean_errors() -> Iterator[None]:
    try:
        yield
    except InvalidEvent as error:
        raise click.UsageError(str(error)) from error
    except SseError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _warnings_to(handler: logging.Handler) -> Iterator[None]:
    """What this package warns of meanwhile goes there alone, whatever the app does with its log."""
    log = logging.getLogger(__package__)
    level, propagate = log.level, log.propagate
    log.setLevel(logging.WARNING)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
        log.setLevel(level)


def _print_stream(channels: Channels, names: tuple[str, ...], last_event_id: str | None, seconds: float) -> None:
    out: Any = sys.stdout.buffer
    out = getattr(out, "raw", out)  # so that nothing is left in a buffer, which Python would write at its end
    ends = time.monotonic() + seconds
    with _warnings_to(logging.NullHandler()):
        channels.broker.clients_elsewhere(names[0])  # for its error: what listens goes on trying
    with _warnings_to(logging.StreamHandler()), _Listening(channels, names, last_event_id, out, ends) as listening:
        for block in listening.blocks():
            while block:
                block = block[out.write(block) :]


class _Listening:
    """Reads channels, for ever, on one thread.

    :param out: is noticed to have no reader any more, where it is a pipe.
    :param ends: when the broker must have said what there is, by ``time.monotonic``.
    """

    def __init__(
        self, channels: Channels, names: tuple[str, ...], last_event_id: str | None, out: BinaryIO, ends: float
    ) -> None:
        self._channels = channels
        self._names = names
        self._last_event_id = last_event_id
        self._ends: float | None = ends
        self._bell = Bell()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell.fileno(), selectors.EVENT_READ)
        self._pipe = _pipe(out)
        if self._pipe is not None:
            self._selector.register(self._pipe, selectors.EVENT_READ)  # it can be read only in so far as it is broken

    def __enter__(self) -> _Listening:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._selector.close()
        self._bell.close()

    def blocks(self) -> Iterator[bytes]:
        """The blocks of a stream as they come.

        It ends where more is pending than may be, or Redis has lost events; then another goes on after the last block.

        :raises BrokerUnavailable: where the broker does not say in time what there is.
        :raises BrokenPipeError: where nobody reads the output any more.
        """
        while True:
            emitter = self._channels.subscribe(self._names, 0, self._last_event_id, heartbeat=0, overflow="close")
            try:
                yield from self._blocks_of(_Tap(emitter, self._bell))
            finally:
                emitter.complete()

    def _blocks_of(self, tap: _Tap) -> Iterator[bytes]:
        begun = b""
        while (piece := tap.take()) is not None:
            if not piece:
                self._wait()
            *blocks, begun = (begun + piece).split(b"\n\n")
            for block in blocks:
                if block.startswith(b"retry: "):  # the end of a stream, which nobody is to see here
                    continue
                yield block + b"\n\n"
                if block.startswith(b"id: "):
                    self._last_event_id = block[len(b"id: ") :].partition(b"\n")[0].decode()

    def _wait(self) -> None:
        ready = self._selector.select(self._time_left())
        self._bell.hush()
        if any(key.fd == self._pipe for key, _ in ready):
            raise BrokenPipeError

    def _time_left(self) -> float | None:
        """Until the broker must have said what there is; None once it has."""
        if self._ends is None:
            return None
        if all(self._channels.feed(name).log is not None for name in self._names):
            self._ends = None
            return None
        left = self._ends - time.monotonic()
        if left <= 0:
            because = self._channels.broker.status().get("error", "no answer in SSE_PUBLISH_SECONDS")
            raise BrokerUnavailable(f"the broker does not let us listen: {because}; is SSE_BROKER_URL right?")
        return left


class _Tap:
    """The outlet of an emitter whose stream is read here.

    :param bell: rings when there is something to take again.
    """

    declined: str | None = None

    def __init__(self, emitter: SseEmitter, bell: Bell) -> None:
        self._emitter = emitter
        self._bell = bell
        self._asleep = False  # there was nothing to take
        self._woken = False  # but now there is
        self._given = b""
        emitter._stream_to(self)

    def take(self) -> bytes | None:
        """What has come; ``b""`` where there is nothing until the bell rings, None at the end."""
        if self._asleep:
            if not self._woken:
                return b""
            self._asleep = self._woken = False
            given, self._given = self._given, b""
            if given:
                return given
        piece = self._emitter._take()
        self._asleep = piece == b""
        return piece

    def wake(self) -> None:
        self._woken = True
        self._bell.ring()

    def give(self, payload: bytes) -> None:
        self._given = payload
        self.wake()

    def cut(self) -> None:
        """There is no client to let go of: whoever reads finds the end."""

    def unsent(self) -> int | None:
        return None


def _pipe(out: BinaryIO) -> int | None:
    try:
        descriptor = out.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except OSError:  # a test's
        return None
