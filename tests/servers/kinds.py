"""The kinds of servers that a test of this folder runs on."""

from __future__ import annotations

import pytest

from tests.support.servers import SERVERS


def _params(kinds: tuple[str, ...]) -> list[object]:
    """Return parameters with which xdist runs all tests of a kind on one worker, so that they share one server."""
    return [pytest.param(kind, marks=pytest.mark.xdist_group(f"server-{kind}")) for kind in kinds]


#: The parameters of the fixture ``server``.
ON_EACH = _params(tuple(SERVERS))


def on(*kinds: str) -> pytest.MarkDecorator:
    """Run a test on the servers of these kinds only."""
    return pytest.mark.parametrize("server", _params(kinds), indirect=True)
