"""Shared by all tests: programs that may be missing, servers, and a scheduler under the test's control."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskCliRunner

from .clock import ManualScheduler
from .servers import SERVERS, Server


def program(name: str, package: str) -> str:
    """Return the path of a program of Debian; if it is missing, skip the test, or fail it in CI."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")  # sbin is not in every PATH
    if path is None:
        reason = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def cli_runner(app: Flask) -> FlaskCliRunner:
    """Return a runner of an app's commands that separates stdout and stderr, which click before 8.2 needs asked."""
    mixes = "mix_stderr" in inspect.signature(CliRunner).parameters
    return app.test_cli_runner(**({"mix_stderr": False} if mixes else {}))


@pytest.fixture
def scheduler() -> ManualScheduler:
    return ManualScheduler()


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Serve the contract application on each of the servers, one after the other."""
    with Server(request.param, "tests.contract_app:app") as server:
        yield server
