"""The servers that the tests of this folder share: one of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.kinds import ON_EACH
from tests.support.servers import Server


@pytest.fixture(scope="session", params=ON_EACH)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Serve ``tests/apps/handoff.py``, to which a test may add an app of its own: see ``new_app``."""
    with Server(request.param, "tests.apps.handoff:app") as server:
        yield server
