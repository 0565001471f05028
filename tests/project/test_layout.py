"""Where tests lie, what they may use, and how they are called: see "Where a test goes" in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.servers import ROOT

TESTS = ROOT / "tests"

#: Folders of tests, and helpers that start something which tests there may not start.
FORBIDDEN = {
    "unit": {"subprocess", "playwright", "tests.support.servers", "tests.support.redis_server", "tests.support.nginx"},
    "inprocess": {"subprocess", "playwright", "tests.support.servers", "tests.support.redis_server"},
    "concurrency": {"playwright", "tests.support.servers", "tests.support.redis_server"},
    "brokers": {"playwright"},
}

#: Folders whose tests may use any name of the package.
INSIDERS = {"unit", "concurrency"}

#: Modules that users import; what they offer is public.
PUBLIC_MODULES = ("", ".access", ".brokers", ".errors", ".gunicorn", ".metrics", ".signals", ".testing")

MAX_NAME_CHARACTERS = 80
MAX_MODULE_LINES = 400


def folder_of(path: Path) -> str:
    return path.relative_to(TESTS).parts[0]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Iterate over what a module imports: the module, and the name that is taken of it, or an empty one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", each.name) for each in node.names)
        elif isinstance(node, ast.Import):
            yield from ((each.name, "") for each in node.names)


MODULES = sorted(TESTS.rglob("*.py"))
TEST_MODULES = [path for path in MODULES if path.name.startswith("test_")]


def names_of_tests() -> Iterator[tuple[Path, str]]:
    for path in TEST_MODULES:
        for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE):
            yield path, name


def test_layout_each_module_lies_in_a_folder_with_a_reason() -> None:
    named = set(re.findall(r"`(\w+)/`", (ROOT / "CONTRIBUTING.md").read_text()))
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - named == set()
    assert [path for path in TEST_MODULES if path.parent == TESTS] == []


def test_layout_no_module_imports_a_test_module() -> None:
    found = [
        (str(path.relative_to(TESTS)), module, name)
        for path in MODULES
        for module, name in imports(path)
        if re.search(r"(^|\.)test_\w+$", module) or name.startswith("test_")
    ]
    assert found == []


def test_layout_tests_start_only_what_their_folder_may() -> None:
    found = [
        (str(path.relative_to(TESTS)), module)
        for path in TEST_MODULES
        for module, name in imports(path)
        for forbidden in FORBIDDEN.get(folder_of(path), ())
        if (module == forbidden or module.startswith(f"{forbidden}.")) and name != "ROOT"
    ]
    assert found == []


def test_layout_only_unit_and_concurrency_use_more_than_public_names() -> None:
    public = {f"flask_sse_emitters{part}" for part in PUBLIC_MODULES}
    offered = {module: set(getattr(import_module(module), "__all__", ())) for module in public}
    found = [
        (str(path.relative_to(TESTS)), module, name)
        for path in MODULES
        if folder_of(path) not in INSIDERS
        for module, name in imports(path)
        if module.split(".")[0] == "flask_sse_emitters"
        and not (module in public and (not name or name in offered[module] or f"{module}.{name}" in public))
    ]
    assert found == []


def test_layout_names_are_short_and_each_is_used_once() -> None:
    names = [name for _, name in names_of_tests()]
    assert [name for name in names if len(name) > MAX_NAME_CHARACTERS] == []
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_layout_test_modules_can_be_read_at_one_sitting() -> None:
    lines = {str(path.relative_to(TESTS)): len(path.read_text().splitlines()) for path in TEST_MODULES}
    assert {path: count for path, count in lines.items() if count > MAX_MODULE_LINES} == {}


def test_layout_readme_names_an_existing_test_for_every_promise() -> None:
    named = re.findall(r"`([\w/]+/test_\w+)::(test_\w+)`", (TESTS / "README.md").read_text())
    there = {(str(path.relative_to(TESTS).with_suffix("")), name) for path, name in names_of_tests()}
    assert len(named) > 40
    assert set(named) - there == set()


@pytest.mark.xdist_group("layout")
def test_layout_groups_of_tests_are_heeded(request: pytest.FixtureRequest) -> None:
    """Else each worker of pytest-xdist would start the servers that tests of one group share."""
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@layout")
