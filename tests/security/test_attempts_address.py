"""Headers of a client do not change the address that limits count."""

from __future__ import annotations

import re

import pytest

from tests.security.attempts import World, on_gevent
from tests.support.client import connected, new_name


@on_gevent
@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Remote-Addr"],
)
def test_max_clients_per_address_ignores_address_headers_of_clients(world: World, header: str) -> None:
    text = new_name()
    value = "for=192.0.2.1" if header == "Forwarded" else "192.0.2.1"
    with connected(world.server, "/limited/events/open") as one, connected(world.server, "/limited/events/open") as two:
        with connected(world.server, "/limited/events/open", headers={header: value}) as third:
            world.publish("/limited", ["open"], text)
            assert re.fullmatch(rb"retry: \d+\n\nid: [^\n]+\n\n", third.rest())
        assert [one.texts(1), two.texts(1)] == [[text], [text]]
