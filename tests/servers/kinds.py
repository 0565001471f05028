"""The kinds of servers that a test of this folder runs on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

#: Those whose streams are written by the package's own thread.
HANDING_OFF = ("gevent", "gthread", "sync", "gevent_pywsgi")

#: Servers other than gunicorn's and Werkzeug's, each with 8 threads.
OTHERS = ("waitress", "uwsgi", "a2wsgi", "mod_wsgi")


def each(app: str, kinds: Sequence[str]) -> list[object]:
    """Return parameters with which xdist runs all tests of an app and kind on one worker, to share a server."""
    return [pytest.param(kind, marks=pytest.mark.xdist_group(f"{app}-{kind}")) for kind in kinds]


def on(*kinds: str) -> pytest.MarkDecorator:
    """Run a test on the servers of these kinds only, in place of all."""
    return pytest.mark.parametrize("server", each("server", kinds), indirect=True)
