"""A client whose access is over gets nothing that is published later."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask_sse_emitters.testing import decode
from tests.security.attempts import Outsider, World, token
from tests.support.client import connected, new_name
from tests.support.waiting import until


@contextmanager
def reading(world: World, user: str, channel: str, *headers: str, buffer: int = 0) -> Iterator[Outsider]:
    lines = [f"GET /events/{channel} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Cookie: {world.login(user)}", *headers]
    with Outsider(world, "\r\n".join([*lines, "", ""]).encode(), buffer) as outsider:
        outsider.read_until(b"\r\n\r\n")
        yield outsider


def status(world: World, path: str, **headers: str) -> int:
    with connected(world.server, path, headers=headers) as client:
        return client.response.status


def bob_and_another() -> tuple[str, str, str]:
    return f"bob-{new_name()}", f"bob-{new_name()}", new_name()


def test_revocation_by_disconnect_sends_nothing_but_the_end(world: World) -> None:
    user, other, secret = bob_and_another()
    channel, first = new_name(), new_name()
    with reading(world, user, channel) as revoked, reading(world, other, channel) as stays:
        world.publish("", [channel], first)
        for reader in (revoked, stays):
            reader.read_until(f"{first}\n\n\r\n".encode())
        so_far = len(revoked.got)
        world.post("/disconnect", {"identity": user, "channels": [channel], "data": secret})
        revoked.read_to_end()
        stays.read_until(secret.encode())
    assert re.fullmatch(rb"[0-9a-f]+\r\nretry: \d+\n\n\r\n0\r\n\r\n", revoked.got[so_far:].lower()), revoked.got
    assert secret.encode() in stays.got


def test_revocation_by_disconnect_sends_no_secret_to_a_slow_reader(world: World) -> None:
    user, other, secret = bob_and_another()
    channel = new_name()
    with reading(world, user, channel, buffer=4096) as revoked:
        heads = world.post("/fill", channel)
        with reading(world, other, channel) as stays:
            world.post("/disconnect", {"identity": user, "channels": [channel], "data": secret})
            stays.read_until(secret.encode())
        check_that_it_stops(revoked, heads, secret)
        assert secret.encode() in stays.got


def test_revocation_by_disconnect_sends_no_secret_during_a_replay(world: World) -> None:
    user, other, secret = bob_and_another()
    channel = new_name()
    begin = world.publish("", [channel], "begin")[channel]
    heads = world.post("/fill", channel)
    with reading(world, user, channel, f"Last-Event-ID: {begin}", buffer=4096) as revoked:
        revoked.read_until(heads[1].encode())
        with reading(world, other, channel) as stays:
            world.post("/disconnect", {"identity": user, "channels": [channel], "data": secret})
            stays.read_until(secret.encode())
        check_that_it_stops(revoked, heads, secret)
        assert secret.encode() in stays.got


def check_that_it_stops(revoked: Outsider, heads: list[str], secret: str) -> None:
    """Check that what was on its way arrives without a hole, and that what waited does not."""
    revoked.read_to_end()
    got = [event.data[:40] for event in decode(revoked.body)]
    assert got == heads[: len(got)]
    assert len(got) < len(heads)
    assert secret.encode() not in revoked.got


def test_revocation_by_recheck_sends_no_later_event(world: World) -> None:
    user, other, secret = bob_and_another()
    channel = new_name()
    with reading(world, user, channel) as revoked, reading(world, other, channel) as stays:
        for each in (user, other):
            if each == user:
                world.post("/deny", each)
            world.post("/recheck", each)
        until(lambda: world.stats("")["channels"].get(channel) == 1, "the denied client to be disconnected")
        world.publish("", [channel], secret)
        revoked.read_to_end()
        stays.read_until(secret.encode())
    assert re.search(rb"\nid: [^\n]+\n\nretry: \d+\n\n$", revoked.body)
    assert (secret.encode() in revoked.got, secret.encode() in stays.got) == (False, True)
    assert status(world, f"/events/{channel}", Cookie=world.login(user)) == 403


def test_expired_token_ends_the_stream_before_later_events(world: World) -> None:
    channel, first, secret = new_name(), new_name(), new_name()
    soon = token(sse=[channel], exp=int(time.time()) + 3)
    lines = [f"GET /jwt/events/{channel} HTTP/1.1", "Host: localhost", "Connection: close"]

    def request(credentials: str) -> bytes:
        return "\r\n".join([*lines, f"Authorization: Bearer {credentials}", "", ""]).encode()

    with Outsider(world, request(soon)) as expires, Outsider(world, request(token(sse=[channel]))) as stays:
        for reader in (expires, stays):
            reader.read_until(b"\r\n\r\n")
        world.publish("/jwt", [channel], first)
        expires.read_until(first.encode())
        until(lambda: world.stats("/jwt")["channels"] == {channel: 1}, "the expired client to be disconnected")
        world.publish("/jwt", [channel], secret)
        expires.read_to_end()
        stays.read_until(secret.encode())
    assert re.search(rf"\ndata: {first}\n\n(retry: \d+\n\n)?$".encode(), expires.body), expires.body
    assert (secret.encode() in expires.got, secret.encode() in stays.got) == (False, True)
    assert status(world, f"/jwt/events/{channel}", Authorization=f"Bearer {soon}") == 401
