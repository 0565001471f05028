"""A client whose access is over gets nothing that is published later."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flask_sse_emitters.testing import decode
from tests.security.attempts import Outsider, World, token
from tests.support.client import connected, new_name, post
from tests.support.waiting import until


@contextmanager
def reading(world: World, path: str, *headers: str, buffer: int = 0) -> Iterator[Outsider]:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    with Outsider(world, "\r\n".join([*lines, "", ""]).encode(), buffer) as outsider:
        yield outsider


@pytest.mark.parametrize("how", ["disconnect", "recheck", "expiry"])
def test_revocation_sends_nothing_but_the_end(world: World, how: str) -> None:
    site, channel, first, secret = "/jwt" if how == "expiry" else "", new_name(), new_name(), new_name()
    path, user, other = f"{site}/events/{channel}", f"bob-{new_name()}", f"bob-{new_name()}"
    if site:
        own, others = (f"Authorization: Bearer {token(sse=[channel], exp=int(time.time()) + more)}" for more in (3, 60))
    else:
        own, others = (f"Cookie: {world.login(name)}" for name in (user, other))
    with reading(world, path, own) as revoked, reading(world, path, others) as stays:
        world.publish(site, [channel], first)
        for reader in (revoked, stays):
            reader.read_until(f"{first}\n\n".encode())
        so_far = len(revoked.body)
        if how == "disconnect":
            post(world.server, f"/disconnect/{user}")
        elif how == "recheck":
            post(world.server, "/deny", user)
            for each in (user, other):
                post(world.server, f"/recheck/{each}")
        if how != "disconnect":  # which has ended it when it returns
            until(lambda: world.stats(site)["channels"].get(channel) == 1, "the client to be disconnected")
        world.publish(site, [channel], secret)
        revoked.read_to_end()
        stays.read_until(secret.encode())
    end = rb"(retry: \d+\n\n)?" if how == "expiry" else rb"retry: \d+\n\n"
    assert re.fullmatch(end, revoked.body[so_far:])
    assert secret.encode() in stays.body
    name, _, value = own.partition(": ")
    with connected(world.server, path, headers={name: value}) as again:
        assert again.response.status == {"disconnect": 200, "recheck": 403, "expiry": 401}[how]


@pytest.mark.parametrize("replays", [False, True], ids=["slow", "in a replay"])
def test_revocation_sends_no_secret_to_a_reader_that_is_behind(world: World, replays: bool) -> None:
    channel, secret = new_name(), new_name()
    path, user = f"/events/{channel}", f"bob-{new_name()}"
    headers = [f"Cookie: {world.login(user)}"]
    if replays:
        headers.append(f"Last-Event-ID: {world.publish('', [channel], 'begin')[channel]}")
        heads = post(world.server, "/fill", channel)
    with reading(world, path, *headers, buffer=4096) as revoked:
        if replays:
            revoked.read_until(heads[1].encode())
        else:
            heads = post(world.server, "/fill", channel)
        with reading(world, path, f"Cookie: {world.cookies['bob']}") as stays:
            post(world.server, f"/disconnect/{user}")
            world.publish("", [channel], secret)
            stays.read_until(secret.encode())
        revoked.read_to_end()
    got = [event.data[:40] for event in decode(revoked.body)]
    assert got == heads[: len(got)], "what was on its way arrives without a hole"
    assert len(got) < len(heads), "what waited does not arrive"
    assert secret.encode() not in revoked.body
    assert secret.encode() in stays.body
