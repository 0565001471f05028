"""Run the commands of an app within this process."""

from __future__ import annotations

import inspect

from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskCliRunner


def cli_runner(app: Flask) -> FlaskCliRunner:
    """Return a runner of an app's commands that separates stdout and stderr, which click before 8.2 needs asked."""
    mixes = "mix_stderr" in inspect.signature(CliRunner).parameters
    return app.test_cli_runner(**({"mix_stderr": False} if mixes else {}))
