"""``flask sse check`` as a command: its arguments, output and exit status, and what it does not print."""

from __future__ import annotations

import json

import pytest

from tests.support.web.tiny_server import END, TinyServer, chunk, head
from tests.unit.tools.check.streams import FRESH, ends_after, good, invoked, stream


def test_check_prints_faults_and_fixes_and_exits_with_1() -> None:
    with TinyServer(stream(FRESH, "Content-Encoding: br")) as server:
        result = invoked(server.url, "--no-replay")
    assert result.exit_code == 1
    assert "FAULT  compressed" in result.stdout
    assert "gzip off;" in result.stdout
    assert result.stdout.endswith("\n1 fault.\n")
    assert result.stderr.startswith(
        f"- connecting to 127.0.0.1:{server.port}, and waiting for the answer, 10 s at most\n"
    )


def test_check_prints_all_is_well_and_exits_with_0() -> None:
    with TinyServer(good) as server:
        result = invoked(server.url, "--header", "X-Mine: a: b", "--header", "Accept:text/event-stream, */*")
        sent = server.requests[0].headers
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "All is well.")
    assert (sent["x-mine"], sent["accept"]) == ("a: b", "text/event-stream, */*")
    assert sent["host"] == f"127.0.0.1:{server.port}"


def test_check_of_a_stream_over_for_good_skips_the_rest() -> None:
    final = chunk(b"event: ~end\nid: ~end\ndata:\n\n")
    with TinyServer(ends_after(head(FRESH), chunk(b"id: 1\ndata: x\n\n"), final, END)) as server:
        result = invoked(server.url)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "All is well.")
    assert "NOTE   over" in result.stdout
    assert not {"ended", "replay", "read-timeout"} & {line[7:].split(" ")[0] for line in result.stdout.splitlines()}
    assert "- it is over for good: the other streams are skipped\n" in result.stderr


def test_check_prints_json() -> None:
    with TinyServer(ends_after(head(status="404 Not Found"), END)) as server:
        result = invoked(server.url, "--json")
    printed = json.loads(result.stdout)
    assert result.exit_code == printed["faults"] == 1
    assert [(each["name"], each["level"]) for each in printed["findings"]] == [("status", "fault")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["example.com/events"], "http:// or https://"),
        (["ftp://example.com/"], "http:// or https://"),
        (["http://"], "and a host"),
        (["http://example.com:x/"], "no address of a stream"),
        (["http://ann:secret@example.com/"], "--header 'Authorization: Basic ...'"),
        (["http://example.com/", "--header", "Authorization"], "no 'Name: value'"),
        (["http://example.com/", "--header", "X: a\r\nY: b"], "no 'Name: value'"),
        (["http://example.com/", "--origin", "example.com"], "no origin of a page"),
        (["http://example.com/", "--origin", "*"], "no origin of a page"),
        (["http://example.com/", "--seconds", "0"], "--seconds"),
        ([], "URL"),
    ],
)
def test_check_invalid_argument_is_a_usage_error(arguments: list[str], expected: str) -> None:
    result = invoked(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert expected in result.stderr


def test_check_escapes_control_characters_of_status_and_body() -> None:
    hostile = head(status="404 \x1b[31mred", kind="text/plain"), chunk(b"\x1b]0;owned\x07"), END
    with TinyServer(ends_after(*hostile)) as server:
        result = invoked(server.url)
    assert "\x1b" not in result.output
    assert "404 [31mred" in result.output


def test_check_escapes_control_characters_of_a_redirect() -> None:
    location = "http://\x9b2J\x1bc.invalid/"
    answer = f"HTTP/1.1 302 F\x1bound\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    with TinyServer(ends_after(answer)) as server:
        result = invoked(server.url)
    assert result.exit_code == 1
    for text in (result.stdout, result.stderr):
        assert r"\x9b2j\x1bc.invalid" in text
        assert text.replace("\n", "").isprintable()
