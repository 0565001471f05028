"""The way to PostgreSQL: addresses, what errors mean, and what is told in few messages."""

from __future__ import annotations

import json
import socket
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from flask_sse_emitters.brokers.postgresql.client.address import Address
from flask_sse_emitters.brokers.postgresql.client.errors import diagnose, error_text, may_have_run
from flask_sse_emitters.brokers.postgresql.client.wakeups import MAX_MESSAGE, Wakeups, messages_of
from flask_sse_emitters.brokers.remote.trouble import before_sending
from tests.support.brokers.broker_calls import in_threads
from tests.support.waiting import until


def attempts(url: str) -> list[tuple[Any, Any, Any]]:
    each = map(conninfo_to_dict, Address(url).attempts())
    return [(found.get("host"), found.get("hostaddr"), found.get("port")) for found in each]


def test_address_shows_no_password() -> None:
    assert Address("postgresql://me:secret@db:5433/app?sslmode=require").shown == "postgresql://db:5433/app"


@pytest.mark.parametrize("url", ["postgresql://h/d?nonsense=1", "redis://h", "postgresql://me:se%cret@h"])
def test_address_that_libpq_does_not_take_is_an_error_without_a_password(url: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - whatever it says, it must not show the password
        Address(url)
    assert "se%cret" not in str(caught.value)


def test_address_tries_each_address_of_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"one": ["10.0.0.1", "10.0.0.2"], "two": ["10.0.0.3"]}

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror("unknown")
        return [(0, 0, 0, "", (each, port)) for each in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert attempts("postgresql://one:1,gone:2,two:3/d") == [
        ("one", "10.0.0.1", "1"),
        ("one", "10.0.0.2", "1"),
        ("two", "10.0.0.3", "3"),
    ]
    assert attempts("postgres://10.0.0.9/d") == [("10.0.0.9", "10.0.0.9", None)]
    assert attempts("postgresql:///d?host=/run/postgresql") == [("/run/postgresql", None, None)]
    with pytest.raises(OSError, match="unknown"):
        attempts("postgresql://gone/d")


def error(code: str, text: str = "x") -> psycopg.Error:
    return psycopg.errors.lookup(code)(text)


@pytest.mark.parametrize(
    ("failed", "cause", "may_be"),
    [
        (error("42501"), "rights", False),
        (error("53100"), "full", False),
        (error("25006"), "standby", False),
        (error("42P01"), "schema", False),
        (error("53300"), "connections", False),
        (error("22012"), "other", False),
        (error("57P01"), "away", True),
        (error("57P03"), "away", True),
        (error("08006"), "away", True),
        (psycopg.OperationalError("server closed the connection unexpectedly"), "away", True),
        (psycopg.OperationalError("FATAL:  password authentication failed for user"), "login", True),
        (psycopg.OperationalError("FATAL:  sorry, too many clients already"), "connections", True),
        (TimeoutError("it has not answered in time"), "away", True),
    ],
    ids=repr,
)
def test_postgresql_error_says_what_to_change_and_what_may_have_run(
    failed: Exception, cause: str, may_be: bool
) -> None:
    assert (diagnose(failed).cause, may_have_run(failed)) == (cause, may_be)
    with pytest.raises(type(failed)), before_sending():
        raise failed
    assert not may_have_run(failed)


def test_postgresql_error_text_is_one_line() -> None:
    assert error_text(psycopg.Error('relation "x" does not exist\nLINE 1: SELECT\n')) == 'relation "x" does not exist'
    assert error_text(TimeoutError()) == "TimeoutError"


def test_messages_tell_all_positions_and_stay_short() -> None:
    positions = {f"channel-{number}": f"abcde-{number}" for number in range(1000)}
    messages = messages_of(positions.items())
    assert max(map(len, messages)) < 8000
    assert len(messages) < 10
    told: dict[str, str] = {}
    for message in messages:
        told |= dict(json.loads(message[1:]))
    assert told == positions
    [longest] = messages_of([("x" * 201, "abcde-1")])
    assert len(longest) < MAX_MESSAGE


def test_wakeups_of_many_publishers_are_told_together() -> None:
    told: list[dict[str, str]] = []

    def run(_: str, parameters: Any) -> None:
        if not told:
            until(lambda: len(wakeups._turn._waiting) == 7, "the others to wait for their turn")
        told.append({})
        for message in parameters[0]:
            told[-1] |= dict(json.loads(message[1:]))

    wakeups = Wakeups(run)
    in_threads([lambda number=number: wakeups.tell({f"c{number}": f"e-{number}"}) for number in range(8)])  # type: ignore[misc]
    assert len(told) == 2
    assert {**told[0], **told[1]} == {f"c{number}": f"e-{number}" for number in range(8)}


def test_wakeups_of_two_events_of_a_channel_name_neither() -> None:
    """Nobody knows which is later, and one that names the earlier would not be heeded."""
    told: list[str] = []

    def run(_: str, parameters: Any) -> None:
        if not told:
            until(lambda: len(wakeups._turn._waiting) == 2, "the others to wait for their turn")
        told.extend(parameters[0])

    wakeups = Wakeups(run)
    in_threads([lambda number=number: wakeups.tell({"a": f"e-{number}"}) for number in range(3)])  # type: ignore[misc]
    assert json.loads(told[-1][1:]) == [["a", ""]]
