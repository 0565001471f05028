"""``docs/operating.rst``: alerts that can be loaded, and every warning of the package, with what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "operating.rst").read_text()
PACKAGE = ROOT / "flask_sse_emitters"

#: What the page says of each warning: a part of its text.
LISTED = re.findall(
    r"^   \* - ``(.+)``$", PAGE.partition("Warnings\n---")[2].partition("Versions\n---")[0], re.MULTILINE
)

#: Warnings whose texts come from elsewhere: what another part of the package has said.
PASSED_ON = {"%s; this is logged once", "%s: %s"}


def texts_in(node: ast.AST) -> Iterator[str]:
    """Yield the texts in an expression; of one with values, what stands between them."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def calls_that_warn(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("warning", "warn")
        ):
            yield node


def warnings() -> dict[str, str]:
    """Return the text of each call that warns, with the place of it. One that passes on a text has none."""
    return {
        "".join(found): f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for call in calls_that_warn(path)
        if (found := [*texts_in(call.args[0])])
    }


def rules() -> list[dict[str, Any]]:
    block = PAGE.partition(".. code-block:: yaml\n")[2]
    lines = [line for line in block.split("\n``")[0].splitlines() if not line or line.startswith("   ")]
    groups: dict[str, Any] = yaml.safe_load("\n".join(lines))
    [group] = groups["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_operating_page_explains_every_warning() -> None:
    missing = {
        text: place
        for text, place in warnings().items()
        if text not in PASSED_ON and not any(part in text for part in LISTED)
    }
    assert missing == {}


def test_operating_page_explains_no_warning_that_is_none() -> None:
    """Also those that are made in one place and logged in another."""
    known = [
        "".join(texts_in(node))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.JoinedStr, ast.Constant))
    ]
    assert [part for part in LISTED if not any(part in text for text in known)] == []


def test_operating_page_has_alerts_that_say_what_they_mean() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) >= 10
    for rule in found:
        assert rule["expr"].count("(") == rule["expr"].count(")"), rule["alert"]
        assert set(rule) <= {"alert", "expr", "for", "annotations"}
    assert [rule["alert"] for rule in found if "annotations" not in rule] == []
    named = set(re.findall(r"``(Sse\w+)``", PAGE))
    assert named <= {rule["alert"] for rule in found}


def test_operating_page_names_times_of_the_manifest() -> None:
    manifest = (ROOT / "deploy" / "container" / "kubernetes.yaml").read_text()
    [pause] = re.findall(r'\["sleep", "(\d+)"\]', manifest)
    [grace] = re.findall(r"terminationGracePeriodSeconds: (\d+)", manifest)
    [graceful] = re.findall(
        r"^graceful_timeout = (\d+)", (ROOT / "deploy" / "container" / "gunicorn.conf.py").read_text(), re.MULTILINE
    )
    line = (
        f"``preStop`` ({pause} s) + ``graceful_timeout`` ({graceful} s) + a margin <= ``terminationGracePeriodSeconds``"
    )
    assert line in PAGE
    assert f"({grace} s)" in PAGE
