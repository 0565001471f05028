"""Define ``flask sse``: publish to channels and read them, list the processes that serve them, and check a stream."""

from __future__ import annotations

import atexit
import json
import logging
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from ..brokers import Broker
from ..channels.channel import Channel
from ..channels.names import MAX_CHANNELS, name_for_operator
from ..channels.registry import Channels
from ..config.context import EXTENSION
from ..config.settings import Settings, checked
from ..errors import BrokerUnavailable, InvalidChannel, InvalidEvent, SseError
from ..server.publish_endpoint import parse_json
from .check import Finding, Plan, Target, check
from .listen import ChannelReader
from .process_table import check_processes, describe, summarize
from .terminal import escape_block, escape_controls

#: The exit code of a process that Ctrl-C has ended, as shells report it.
INTERRUPTED = 130

_SECONDS_HELP = "How long to wait for the heartbeat of a silent stream, at most."

commands = AppGroup("sse", help="Use channels, through the broker at SSE_BROKER_URL, and check deployed streams.")

_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*)", re.ASCII)

_COLOURS = {"ok": "green", "note": "yellow", "fault": "red"}


def _check_names(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    try:
        return name_for_operator(value) if isinstance(value, str) else tuple(map(name_for_operator, value))
    except InvalidChannel as error:
        raise click.BadParameter(str(error)) from error


def _check_origin(_context: click.Context, _parameter: click.Parameter, origin: str | None) -> str | None:
    if origin is None:
        return None
    try:
        [found] = checked("cors_origins", [origin])
    except ValueError:
        found = "*"
    if found == "*":
        raise click.BadParameter(f"{origin!r} is no origin of a page, such as https://example.com")
    return str(found)


@commands.command()
@click.argument("channel", callback=_check_names)
@click.argument("data")
@click.option("--event", metavar="NAME", help='The event\'s name; without one it is "message".')
@click.option("--json", "as_json", is_flag=True, help="DATA is JSON: a string in it goes as its text.")
@click.option("--key", help="Makes a retry safe: only one event with this key is published within 5 minutes.")
@click.option(
    "--retry",
    type=click.IntRange(min=0),
    metavar="MS",
    help="How long clients wait before they reconnect, from now on.",
)
def publish(channel: str, data: str, event: str | None, as_json: bool, key: str | None, retry: int | None) -> None:
    """Publish DATA, a text, to all clients of CHANNEL, and print the event's id.

    CHANNEL may be "~IDENTITY", the private channel of a reader.

    "-" reads DATA from stdin, as UTF-8, without its last line end. After "--", DATA may begin with a dash.
    """
    channels, _ = _shared_channels()
    text = _read_stdin() if data == "-" else data
    value = _parse_json_data(text) if as_json else text
    with _warnings_to(logging.NullHandler()), _show_errors():
        click.echo(escape_controls(channels.publish(channel, value, event, retry, key)))
        _print_client_count(channel, channels)


@commands.command()
@click.argument("names", metavar="CHANNEL...", callback=_check_names, nargs=-1, required=True)
@click.option(
    "--last-event-id", metavar="ID", help="Begin after this id, of a stream of the same channels in the same order."
)
@click.pass_context
def listen(context: click.Context, names: tuple[str, ...], last_event_id: str | None) -> None:
    """Print what clients of CHANNEL... get, as it arrives: each event as on the wire, with a blank line after it.

    The first block is an id alone: the position where the stream begins. An event named "gap" means that events were
    lost. On a terminal, control characters are escaped as Python writes them; a pipe or a file gets every byte as it
    is. While the broker is away, stderr says so; missed events follow when it is back. It ends when all these channels
    have ended, or nothing is left of them, with exit code 0, and stderr says so.

    Ctrl-C ends it with exit code 130. Once its output has no reader, it ends with 0.
    """
    channels, settings = _shared_channels()
    names = tuple(dict.fromkeys(names))
    if len(names) > MAX_CHANNELS:
        raise click.UsageError(f"{len(names)} channels: one stream carries {MAX_CHANNELS} at most")
    atexit.register(channels.broker.close)  # other processes count this one as a client no longer
    try:
        with _show_errors():
            _print_stream(channels, names, last_event_id, settings.publish_seconds)
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    except BrokenPipeError:
        context.exit(0)


@commands.command("check")
@click.argument("url")
@click.option("--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Also send this header; repeatable.")
@click.option(
    "--origin",
    metavar="ORIGIN",
    callback=_check_origin,
    help="Check that pages of this origin can read the stream: https://example.com",
)
@click.option("--seconds", type=click.FloatRange(min=1, max=3600), default=75.0, show_default=True, help=_SECONDS_HELP)
@click.option("--replay/--no-replay", default=True, help="Check that reconnecting clients can get what they missed.")
@click.option("--insecure", is_flag=True, help="Accept any certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def check_stream(
    context: click.Context,
    url: str,
    headers: tuple[str, ...],
    origin: str | None,
    seconds: float,
    replay: bool,
    insecure: bool,
    as_json: bool,
) -> None:
    """Connect to the stream at URL as a browser does, and report what is wrong with it and how to fix it.

    It opens three or four streams for about 20 seconds, and publishes nothing. It exits with 1 if there is a fault.
    """
    plan = Plan(_parse_target(url, headers, insecure), origin, seconds, replay)
    try:
        findings = check(plan, lambda text: click.echo(f"- {escape_controls(text)}", err=True))
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    faults = sum(finding.level == "fault" for finding in findings)
    if as_json:
        click.echo(json.dumps({"url": url, "faults": faults, "findings": list(map(asdict, findings))}, indent=2))
    else:
        _print_findings(findings)
        click.echo("All is well." if not faults else "1 fault." if faults == 1 else f"{faults} faults.")
    context.exit(1 if faults else 0)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(as_json: bool) -> None:
    """Print which processes serve the app, and how many clients of which channels they have.

    A process appears with its first stream of a channel. Its figures are a few seconds old. A process that was killed
    disappears within 12 seconds, one that ended in order at once.
    """
    channels, _ = _shared_channels()
    with _warnings_to(logging.NullHandler()), _show_errors():
        processes = current_app.extensions[EXTENSION].processes()
    warnings_here = []  # processes cannot report this through a broker that accepts no writes
    try:
        channels.broker.check_writable()
    except BrokerUnavailable as error:
        warnings_here.append(f"nothing can be published now: {error}")
    checked_processes = check_processes(processes)
    if as_json:
        summary = summarize(checked_processes)
        summary = {**summary, "warnings": summary["warnings"] + warnings_here, "processes": processes}
        click.echo(json.dumps(summary, indent=2))
    else:
        warnings = (f"warning: {escape_controls(text)}" for text in warnings_here)
        click.echo("\n\n".join([describe(checked_processes), *warnings]))


@commands.command()
def schema() -> None:
    """Print the statements that make the schema of postgresql:// in a database, or bring it up to date.

    For a migration, or where the app's role may not create schemas. Run them in one transaction, as psql -1 does; they
    may be run again. The comments at the end say which rights roles need. This connects to nothing.
    """
    broker = _shared_channels()[0].broker
    if (make := getattr(broker, "schema", None)) is None:
        raise click.ClickException("SSE_BROKER_URL is not postgresql://, and only that has a schema")
    click.echo(make(), nl=False)


def _parse_target(url: str, headers: Sequence[str], insecure: bool) -> Target:
    matches = [_HEADER.fullmatch(header) for header in headers]
    if None in matches:
        wrong = headers[matches.index(None)]
        raise click.BadParameter(f"{wrong!r} is no 'Name: value'", param_hint="'--header'")
    try:
        return Target.of(url, tuple((each[1], each[2].strip()) for each in matches if each), verifies=not insecure)
    except ValueError as error:
        raise click.BadParameter(f"{url!r} is no address of a stream: {error}", param_hint="'URL'") from error


def _print_findings(findings: Sequence[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    indent = " " * (width + 9)
    for finding in findings:
        level = click.style(f"{finding.level.upper():5}", fg=_COLOURS[finding.level])
        for number, text in enumerate(filter(None, (finding.seen, finding.fix))):
            start = indent if number else f"{level}  {finding.name:{width}}  "
            lines = textwrap.wrap(escape_controls(text), 78, break_long_words=False, break_on_hyphens=False)
            click.echo(start + f"\n{indent}".join(lines))


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


def _parse_json_data(text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise click.BadParameter(f"no JSON at {where}: {error.msg}", param_hint="'DATA'") from error
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"no JSON that can be read: {error}", param_hint="'DATA'") from error


def _print_client_count(channel: str, channels: Channels) -> None:
    if type(channels.broker).clients_elsewhere is Broker.clients_elsewhere:  # it counts none
        return
    with suppress(BrokerUnavailable):
        count = Channel(channel, lambda: channels).subscribers()
        click.echo("1 client reads it" if count == 1 else f"{count} clients read it", err=True)


@contextmanager
def _show_errors() -> Iterator[None]:
    try:
        yield
    except InvalidEvent as error:
        raise click.UsageError(escape_controls(str(error))) from error
    except SseError as error:
        raise click.ClickException(escape_controls(str(error))) from error


@contextmanager
def _warnings_to(handler: logging.Handler) -> Iterator[None]:
    """Send this package's warnings to this handler alone, whatever the app does with its log."""
    log = logging.getLogger("flask_sse_emitters")
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


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record), keep="\n\t")


def _stderr_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_EscapingFormatter())
    return handler


def _print_stream(channels: Channels, names: tuple[str, ...], last_event_id: str | None, seconds: float) -> None:
    out: Any = sys.stdout.buffer
    is_terminal, encoding = sys.stdout.isatty(), sys.stdout.encoding
    out = getattr(out, "raw", out)  # unbuffered: Python would write the rest of a buffer when it exits
    deadline = time.monotonic() + seconds
    with _warnings_to(logging.NullHandler()):
        channels.broker.clients_elsewhere(names[0])  # to raise an error at once: a subscriber would keep trying
    with _warnings_to(_stderr_handler()), ChannelReader(channels, names, last_event_id, out, deadline) as reader:
        reader.print_blocks(partial(escape_block, encoding=encoding) if is_terminal else bytes)
    click.echo(f"{names[0]} has ended" if len(names) == 1 else "all of these channels have ended", err=True)
