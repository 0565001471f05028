"""``flask sse publish``, ``listen`` and ``status`` without a broker that answers, and how their errors read."""

from __future__ import annotations

import click
import pytest
from click.testing import Result
from flask import Flask

from flask_sse_emitters import SSE
from tests.support.cli import cli_runner

NOWHERE = "redis://127.0.0.1:1"
INVALID = ": a channel's name has 1 to 200 ASCII letters, digits and . _ - : / @, unlike "


def invoked(*arguments: str, data: bytes | None = None, **config: object) -> Result:
    app = Flask(__name__)
    app.config.update({"SSE_BROKER_URL": NOWHERE, **config})
    SSE(app)
    return cli_runner(app).invoke(args=["sse", *arguments], input=data)


ALL = pytest.mark.parametrize(
    "arguments",
    [("publish", "orders", "x"), ("listen", "orders"), ("status",)],
    ids=["publish", "listen", "status"],
)


@ALL
def test_cli_without_a_shared_broker_fails_and_names_the_setting(arguments: tuple[str, ...]) -> None:
    result = invoked(*arguments, SSE_BROKER_URL="memory://")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: SSE_BROKER_URL is memory://" in result.stderr
    assert "set SSE_BROKER_URL, in the app's config, to a broker that all processes share" in result.stderr


@ALL
def test_cli_with_an_unreachable_broker_fails_with_one_error(
    arguments: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Without the package's own log lines, which Python prints where logging is not configured."""
    result = invoked(*arguments)
    assert (result.exit_code, result.stdout, caplog.text) == (1, "", "")
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: Redis did not ")
    assert line.endswith(f"is {NOWHERE} right (SSE_BROKER_URL), and does it run?")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("publish", "two words", "x"), INVALID),
        (("publish", "", "x"), INVALID),
        (("listen", "orders", "ü"), INVALID),
        (("listen", "x" * 201), INVALID),
        (("listen", *map(str, range(51))), "51 channels: one stream carries 50 at most"),
    ],
)
def test_cli_invalid_channels_are_a_usage_error(arguments: tuple[str, ...], wrong: str) -> None:
    result = invoked(*arguments)
    assert result.exit_code == 2
    assert ("Error: Invalid value for 'CHANNEL" in result.stderr) == (wrong is INVALID)
    assert wrong in result.stderr


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "no JSON at line 1, column 2: Expecting property name"),
        ('{"a": 1,\n "b"}', "no JSON at line 2, column 5: Expecting ':' delimiter"),
        ("", "no JSON at line 1, column 1: Expecting value"),
        ("[NaN]", "NaN is no JSON"),
        ("-Infinity", "-Infinity is no JSON"),
        ("[" * 200_000, "no JSON that can be read: maximum recursion depth exceeded"),
    ],
)
def test_cli_publish_invalid_json_is_a_usage_error_with_its_position(text: str, where: str) -> None:
    result = invoked("publish", "orders", "--json", "--", text)
    assert result.exit_code == 2
    assert f"Error: Invalid value for 'DATA': {where}" in result.stderr or f": {where}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "data", "wrong"),
    [
        (["x", "--event", "two\nlines"], None, "event must not contain '\\n'"),
        (["x", "--event", "gap"], None, "the name 'gap'"),
        (["x", "--retry", "-1"], None, "Invalid value for '--retry'"),
        (["x", "--retry", "soon"], None, "Invalid value for '--retry'"),
        (["x" * 101], None, "SSE_MAX_EVENT_BYTES allows 100"),
        (["-"], b"\xff", "stdin is not UTF-8"),
        (["--json", '"\\ud800"'], None, "data holds a lone surrogate"),
        (["-5"], None, "No such option"),
        ([], None, "Missing argument 'DATA'"),
    ],
)
def test_cli_publish_invalid_event_is_a_usage_error(arguments: list[str], data: bytes | None, wrong: str) -> None:
    result = invoked("publish", "orders", *arguments, data=data, SSE_MAX_EVENT_BYTES=100)
    assert (result.exit_code, result.stdout) == (2, "")
    assert wrong in result.stderr


def test_cli_command_sse_of_the_app_is_kept() -> None:
    app = Flask(__name__)

    @app.cli.command("sse")
    def own() -> None:
        click.echo("the app's own")

    SSE(app)
    assert cli_runner(app).invoke(args=["sse"]).stdout == "the app's own\n"


def test_cli_serves_several_apps_of_one_extension() -> None:
    sse = SSE()
    for name in ("one", "other"):
        app = Flask(name)
        app.config["SSE_BROKER_URL"] = f"redis://127.0.0.1:1/{len(name)}"
        sse.init_app(app)
        found = cli_runner(app).invoke(args=["sse", "publish", "x", "y"])
        assert f"is redis://127.0.0.1:1/{len(name)} right" in found.stderr
