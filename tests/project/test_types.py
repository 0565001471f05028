"""Users' type checkers: they have nothing to say about an app that is right, and find what is wrong."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from tests.apps import typed
from tests.support.programs import miss, program
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

APPS = [ROOT / "tests" / "apps" / name for name in ("typed.py", "own_broker.py")]
MISTAKES = ROOT / "tests" / "project" / "typed" / "mistakes.py"
PYRIGHT = ROOT / "build" / "npm" / "node_modules" / "pyright" / "index.js"

NAMES = [each.name for each in (*APPS, MISTAKES)]

#: Whether the types of Flask have a place for a status beside an emitter.
TYPES_OF_FLASK = Version(version("flask")) >= Version("3.1.1")

#: One worker runs each checker once.
pytestmark = pytest.mark.xdist_group("types")


def run(command: list[str], folder: Path) -> str:
    env = {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=10 * PATIENCE, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(folder: Path) -> list[tuple[str, int, str]]:
    """Return what mypy says in its strict mode: the file, the line and the text of each error."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--hide-error-context"]
    said = run([*command, f"--cache-dir={ROOT / 'build' / 'mypy'}", *NAMES], folder)
    found = re.findall(r"^(\S+?):(\d+): error: (.*)$", said, re.MULTILINE)
    return [(file, int(line), text) for file, line, text in found]


def pyright(folder: Path) -> list[tuple[str, int, str]]:
    """Return what pyright says in its strict mode."""
    report = json.loads(run([*_pyright_with(folder), "--outputjson"], folder))
    return [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]


def _pyright_with(folder: Path) -> list[str]:
    if not PYRIGHT.exists():
        miss("pyright is missing: apt-get install npm && make build/npm/.installed")
    settings = {"typeCheckingMode": "strict", "include": NAMES}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    return [program("node", "nodejs"), str(PYRIGHT), "-p", str(folder), "--pythonpath", sys.executable]


CHECKERS: dict[str, Callable[[Path], list[tuple[str, int, str]]]] = {"mypy": mypy, "pyright": pyright}


@pytest.fixture(scope="module", params=CHECKERS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, str]]:
    """What a checker finds in a folder with nothing but the app, and the mistakes."""
    folder = tmp_path_factory.mktemp("user")
    for file in (*APPS, MISTAKES):
        shutil.copy(file, folder)
    return CHECKERS[request.param](folder)


def test_types_strict_checkers_accept_an_app_without_casts_or_ignores(found: list[tuple[str, int, str]]) -> None:
    assert not any(re.search(r"\bcast\(|# (type|pyright): |\bAny\b", app.read_text()) for app in APPS)
    lines = {app.name: app.read_text().splitlines() for app in APPS}
    said = [(lines[file][line - 1], text) for file, line, text in found if file != MISTAKES.name]
    assert [each for each in said if TYPES_OF_FLASK or not each[0].endswith("# Flask 3.1.1")] == []


def test_types_strict_checkers_find_each_mistake_in_its_line(found: list[tuple[str, int, str]]) -> None:
    lines = MISTAKES.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    by_line = {line: text for file, line, text in found if file == MISTAKES.name}
    assert len(wrong) > 70
    assert {lines[number - 1]: "not found" for number in sorted(wrong - by_line.keys())} == {}
    assert {lines[number - 1]: by_line[number] for number in sorted(by_line.keys() - wrong)} == {}


def test_types_app_that_checkers_accept_runs_and_answers() -> None:
    app = typed.create_app({"TESTING": True, "SSE_HEARTBEAT": 0})
    client = app.test_client()
    routes = [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("views.")]
    assert len(routes) > 12
    answers = {}
    for route in sorted(routes):
        with client.get(route, buffered=False) as response:
            answers[route] = response.status_code
    assert answers == {**dict.fromkeys(routes, 200), "/publish": 201, "/on-commit": 204, "/logout": 204}
    assert client.get("/or-not?full=1").status_code == 503
    assert [event.data for event in typed.read(app)] == ["hello", '{"word": "a"}', '{"word": "b"}', "[DONE]", "1", "x"]
    typed.sse.close()


def test_types_of_all_public_names_are_written_out(tmp_path: Path) -> None:
    """Else checkers would infer them, each in its own way, or not at all."""
    command = [*_pyright_with(tmp_path), "--verifytypes", "flask_sse_emitters", "--ignoreexternal", "--outputjson"]
    report = json.loads(run(command, tmp_path))["typeCompleteness"]
    names = set(_public_names())
    found = {each["name"]: each["diagnostics"] for each in report["symbols"]}
    assert names <= found.keys()
    public = [name for name in found if name in names or _is_public_member(name, names)]
    assert len(public) > 300
    said = {name: [each["message"] for each in found[name]] for name in public}
    # What a type consists of is another symbol; those below, of the inside, are no user's concern.
    assert {name: texts for name, texts in said.items() if any("partially" not in text for text in texts)} == {}


def _public_names() -> Iterator[str]:
    """Yield all public names, as the modules that define them call them."""
    for part in ("", ".access", ".brokers", ".datastar", ".gunicorn", ".metrics", ".signals", ".testing", ".types"):
        module = import_module(f"flask_sse_emitters{part}")
        for name in module.__all__:
            public = getattr(module, name)
            is_defined = inspect.isclass(public) or inspect.isfunction(public)
            yield f"{public.__module__ if is_defined else module.__name__}.{name}"


def _is_public_member(name: str, names: set[str]) -> bool:
    owner, _, member = name.rpartition(".")
    return owner in names and not member.startswith("_")
