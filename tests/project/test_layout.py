"""Where tests lie, what they may use, and how they are called: see "Where a test goes" in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.servers import ROOT

TESTS = ROOT / "tests"

#: Helpers that start a server.
_STARTERS = """brokers.pgbouncer brokers.postgresql brokers.redis_server brokers.redis_topologies brokers.shared_broker
    servers web.apache web.nginx web.other_servers web.workers_server"""
STARTERS = {f"tests.support.{name}" for name in _STARTERS.split()}

#: Folders of tests, and what starts something which tests there may not start.
FORBIDDEN = {
    "unit": {"subprocess", "playwright", *STARTERS},
    "inprocess": {"subprocess", "playwright", *STARTERS},
    "concurrency": {"playwright", *STARTERS},
    "brokers": {"playwright"},
}

#: Folders whose tests may use any name of the package.
INSIDERS = {"unit", "concurrency"}

#: Modules that users import; what they offer is public.
_NAMES = "access brokers datastar errors gunicorn metrics signals testing types"
PUBLIC_MODULES = ("", *(f".{name}" for name in _NAMES.split()))

MAX_NAME_CHARACTERS = 70
MAX_MODULE_LINES = 400
MAX_FOLDER_ENTRIES = 20

#: Folders of inputs, which nobody reads one by one.
DATA = TESTS / "security" / "fuzz" / "corpus"

MODULES = {str(path.relative_to(TESTS)): path.read_text() for path in sorted(TESTS.rglob("*.py"))}
TEST_MODULES = {path: text for path, text in MODULES.items() if Path(path).name.startswith("test_")}


@cache  # and not when tests are collected, which each worker does
def imports() -> list[tuple[str, str, str, str]]:
    """Return all imports: the path, its folder, the module, and the name that is taken of it, or an empty one."""
    found = []
    for path, text in MODULES.items():
        folder = path.partition("/")[0]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                found += [(path, folder, node.module or "", each.name) for each in node.names]
            elif isinstance(node, ast.Import):
                found += [(path, folder, each.name, "") for each in node.names]
    return found


#: Each test, with the path of its module.
NAMES = [
    (path, name) for path, text in TEST_MODULES.items() for name in re.findall(r"^ *def (test_\w+)", text, re.MULTILINE)
]


def test_layout_each_module_lies_in_a_folder_with_a_reason() -> None:
    named = set(re.findall(r"`(\w+)/`", (ROOT / "CONTRIBUTING.md").read_text()))
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - named == set()
    assert [path for path in TEST_MODULES if "/" not in path] == []


def test_layout_no_module_imports_a_test_module() -> None:
    found = [each for each in imports() if re.search(r"(^|\.)test_\w+$", each[2]) or each[3].startswith("test_")]
    assert found == []


def test_layout_tests_start_only_what_their_folder_may() -> None:
    found = [
        (path, module)
        for path, folder, module, name in imports()
        if path in TEST_MODULES and name != "ROOT"
        for forbidden in FORBIDDEN.get(folder, ())
        if module == forbidden or module.startswith(f"{forbidden}.")
    ]
    assert found == []


def test_layout_only_unit_and_concurrency_use_more_than_public_names() -> None:
    public = {f"flask_sse_emitters{part}" for part in PUBLIC_MODULES}
    offered = {module: set(getattr(import_module(module), "__all__", ())) for module in public}
    found = [
        (path, module, name)
        for path, folder, module, name in imports()
        if folder not in INSIDERS and module.split(".")[0] == "flask_sse_emitters"
        if not (module in public and (not name or name in offered[module] or f"{module}.{name}" in public))
    ]
    assert found == []


def test_layout_names_are_short_and_each_is_used_once() -> None:
    counts = Counter(name for _, name in NAMES)
    assert [name for name, count in counts.items() if count > 1 or len(name) > MAX_NAME_CHARACTERS] == []


def test_layout_folders_have_few_enough_entries_to_look_through() -> None:
    entries = Counter(
        path.parent.relative_to(TESTS)
        for path in TESTS.rglob("*")
        if not (path.name.startswith("__") or "__pycache__" in path.parts or path.is_relative_to(DATA))
    )
    assert entries[Path("servers")] > 10
    assert {folder: count for folder, count in entries.items() if count > MAX_FOLDER_ENTRIES} == {}


def test_layout_starters_exist() -> None:
    assert [name for name in STARTERS if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []


def test_layout_test_modules_can_be_read_at_one_sitting() -> None:
    lines = {path: len(text.splitlines()) for path, text in TEST_MODULES.items()}
    assert {path: count for path, count in lines.items() if count > MAX_MODULE_LINES} == {}


def test_layout_readme_names_an_existing_test_for_every_promise() -> None:
    named = re.findall(r"`([\w/]+/test_\w+)::(test_\w+)`", (TESTS / "README.md").read_text())
    assert len(named) > 40
    assert {(f"{module}.py", name) for module, name in named} - set(NAMES) == set()


@pytest.mark.xdist_group("layout")
def test_layout_groups_of_tests_are_heeded(request: pytest.FixtureRequest) -> None:
    """Else each worker of pytest-xdist would start the servers that tests of one group share."""
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@layout")
