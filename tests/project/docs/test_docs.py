"""The links of the documentation are valid, and all its code runs."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from flask import Flask
from playwright.sync_api import Browser, Page, Route

from flask_sse_emitters import SSE, Publisher
from tests.project.docs import docs_shell
from tests.project.docs.docs_blocks import BROWSER, PAGES, PYTHON, SHELL, Block, blocks_of, modules_of
from tests.project.docs.docs_pages import ANSWERS, DONE_AND_SEEN, ENVIRONMENT, IN_BROWSER, NOT_RUN
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.browser import chromium
from tests.support.programs import miss
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until

BLOCKS = {page.name: blocks_of(page) for page in PAGES}

MARKDOWN = sorted(ROOT.glob("*.md"))

#: The folder in which ``make`` installs npm packages.
NPM = ROOT / "build" / "npm" / "node_modules"

#: The browser module.
SERVED = ROOT / "flask_sse_emitters" / "server" / "static"

_REDIS = re.compile(r"redis://localhost(:6379)?\b")
_HERE = re.compile(r"http://(localhost|127\.0\.0\.1):(8080|8000|5000)|https://[\w.]*example\.(com|org)")

#: Waits for heartbeats, which are 15 seconds apart unless an app says otherwise.
_WAITS = re.compile(r"flask sse check")
_MADE = "app = Flask(__name__)\n"

#: Makes a page record every EventSource that it opens, and every error, also of a script that cannot be loaded.
WATCH = """
window.opened = [];
window.failed = [];
window.EventSource = class extends EventSource {
    constructor(...options) { super(...options); opened.push(this); }
};
addEventListener("error", event => failed.push(event.message || "something cannot be loaded"), true);
addEventListener("unhandledrejection", event => failed.push(String(event.reason)));
"""

#: Whether every stream of a page is open, or will never be.
SETTLED = "failed.length || (window.isDone && opened.every(source => source.readyState !== EventSource.CONNECTING))"


def pages_with(*languages: str) -> list[str]:
    return [page for page, blocks in BLOCKS.items() if any(block.language in languages for block in runnable(blocks))]


def runnable(blocks: list[Block]) -> list[Block]:
    return [block for block in blocks if (block.page, block.first_line) not in NOT_RUN]


class Written:
    """The files of a page, written to a folder, with the addresses of this test's servers in place of its own."""

    def __init__(self, page: str, folder: Path, stack: ExitStack) -> None:
        self.blocks = runnable(BLOCKS[page])
        self.env = {**ENVIRONMENT, "PYTHONPATH": f"{folder}:{ROOT}"}
        self._stack = stack
        self._redis = stack.enter_context(RedisServer()).url if self._needs(_REDIS) else ""
        hurried = _MADE + 'app.config["SSE_HEARTBEAT"] = 1\n' if self._needs(_WAITS) else _MADE
        for file, text in modules_of(self.blocks).items():
            (folder / file).write_text(self.here(text).replace(_MADE, hurried))

    def here(self, text: str, server: str = "") -> str:
        text = _REDIS.sub(self._redis, text)
        return _HERE.sub(server, text) if server else text

    def _needs(self, what: re.Pattern[str], *languages: str) -> bool:
        return any(what.search(block.text) for block in self.blocks if not languages or block.language in languages)

    def needs_server(self) -> bool:
        return self._needs(_HERE, *SHELL)

    def serve(self, kind: str) -> str:
        """Run the page's app on a server, and return its URL."""
        return self._stack.enter_context(Server(kind, "app:app", env=self.env)).url


@pytest.mark.parametrize("page", pages_with(*PYTHON))
def test_docs_python_of_a_page_runs_and_its_routes_answer(page: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        written = Written(page, tmp_path, stack)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.project.docs.docs_run", str(tmp_path)],
            cwd=ROOT,
            env=docs_shell.environment(tmp_path, written.env),
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    answers: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    wrong = {route: answer for route, answer in answers.items() if answer[0] in (404, 405, *range(500, 600))}
    assert not wrong
    promised = {route for block in written.blocks if block.language in PYTHON for route in _routes_in(block.text)}
    assert promised <= set(answers)
    for route, answer in ANSWERS.get(page, {}).items():
        assert answers[route] == answer, route


def _routes_in(text: str) -> set[str]:
    return {f"{method.upper()} {path}" for method, path in re.findall(r'^@app\.(get|post)\("([^"]+)"\)', text, re.M)}


@pytest.mark.parametrize("page", pages_with(*SHELL))
def test_docs_commands_of_a_page_do_what_they_promise(page: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        written = Written(page, tmp_path, stack)
        server = written.serve("gevent") if written.needs_server() else ""
        for block in written.blocks:
            for command in docs_shell.commands_of(block.text) if block.language in SHELL else []:
                docs_shell.run(written.here(command, server), tmp_path, written.env)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.xdist_group("browser")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", pages_with(*BROWSER))
def test_docs_scripts_of_a_page_run_in_a_browser(name: str, browser: Browser, tmp_path: Path) -> None:
    if not NPM.is_dir() and any("/static/" in block.text for block in runnable(BLOCKS[name])):
        miss("npm packages are missing: apt-get install npm && make build/npm/.installed")
    with ExitStack() as stack:
        written = Written(name, tmp_path, stack)
        server = written.serve("werkzeug")
        page = stack.enter_context(browser.new_page())
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script(WATCH)
        for block in written.blocks:
            if block.language in BROWSER:
                _run_in(page, block, server)


def _run_in(page: Page, block: Block, url: str) -> None:
    is_page = block.language == "html"
    body = block.text if is_page else "<!doctype html><title>a page</title>"
    page.unroute_all()
    page.route(f"{url}/a-page", lambda route: route.fulfill(body=body, content_type="text/html"))
    page.route(f"{url}/static/**", _serve_package)
    page.goto(f"{url}/a-page")
    page.evaluate(IN_BROWSER.get(block.page, "0"))
    page.add_script_tag(content=("" if is_page else block.text) + "\nwindow.isDone = true;", type="module")
    page.wait_for_function(SETTLED)
    assert page.evaluate("failed") == [], f"{block.page}:{block.line}"
    assert page.evaluate("opened.every(source => source.readyState === EventSource.OPEN)"), f"{block.page}:{block.line}"
    assert "createEventSource" not in body or page.evaluate("opened") == [], "htmx has the browser's after all"
    if is_page:
        done, seen = DONE_AND_SEEN[block.page]
        page.evaluate(done)
        page.wait_for_function(seen)


def _serve_package(route: Route) -> None:
    """Answer with a file of the npm packages, which a reader would have copied to the app's folder ``static``."""
    path = route.request.url.partition("/static/")[2]
    own = path.removeprefix("flask-sse-emitters/dist/")
    if own != path:  # where npm/build.mjs puts it
        [source] = [*(ROOT / "npm" / "src").glob(own), *SERVED.glob(own)]
        body = re.sub(r'"\.\./[\w/.-]*/', '"./', source.read_text())
        return route.fulfill(body=body, content_type="text/javascript")
    return route.fulfill(path=NPM / path, content_type="text/javascript")


def sections_of(ini: str) -> list[str]:
    parser = ConfigParser(strict=False)
    parser.read_string(ini)
    return parser.sections()


PARSERS: dict[str, Callable[[str], object]] = {"ini": sections_of, "toml": tomllib.loads, "yaml": yaml.safe_load}


@pytest.mark.parametrize("page", pages_with(*PARSERS))
def test_docs_settings_files_of_a_page_can_be_parsed(page: str) -> None:
    for block in runnable(BLOCKS[page]):
        assert block.language not in PARSERS or PARSERS[block.language](block.text)


#: The language of statements for PostgreSQL.
SQL = "postgresql"

#: What the pages take for granted beside the schema.
DATABASE = "CREATE TABLE orders (id int); INSERT INTO orders VALUES (7); CREATE ROLE app; CREATE ROLE reports"


@pytest.mark.parametrize("page", pages_with(SQL))
def test_docs_statements_of_a_page_run_in_a_database(page: str) -> None:
    with PostgresqlServer() as server:
        with Publisher(server.url()) as publisher:
            publisher.publish("orders", "first")
        server.run(DATABASE)
        for block in runnable(BLOCKS[page]):
            if block.language == SQL:
                server.run(block.text)
        server.run("INSERT INTO orders VALUES (8)")
        assert len(server.run("SELECT * FROM sse.outbox")) == 3, "two by hand, and one by the trigger"


def test_docs_custom_broker_is_found_by_its_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = BLOCKS["brokers.rst"]
    [declared] = [tomllib.loads(block.text)["project"]["entry-points"] for block in blocks if block.language == "toml"]
    [(group, points)] = declared.items()
    (tmp_path / "audited.py").write_text(modules_of(blocks)["audited.py"])
    (tmp_path / "audited-1.dist-info").mkdir()
    lines = [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (tmp_path / "audited-1.dist-info" / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = "audited://"
    sse = SSE(app)
    with caplog.at_level(logging.INFO, "audited"):
        event_id = sse.publish("orders", "one")
    assert [record.getMessage() for record in caplog.records] == [f"orders: {event_id}"]
    del sys.modules["audited"]


@pytest.mark.parametrize("page", ["quickstart.rst", "deploying.rst", "the example"])
def test_docs_gunicorn_conf_logs_warnings_in_gunicorns_format(page: str, tmp_path: Path) -> None:
    name = "gunicorn.conf.py"
    config = (ROOT / name).read_text() if page == "the example" else modules_of(BLOCKS[page])[name]
    (tmp_path / name).write_text(config)
    (tmp_path / "app.py").write_text(
        "from flask import Flask\n"
        "from flask_sse_emitters import SSE\n"
        "app = Flask(__name__)\n"
        "app.config['SSE_TIMOUT'] = 60\n"
        "SSE(app)\n"
    )
    arguments = ["--config", str(tmp_path / name), "--chdir", str(tmp_path), "--workers", "1"]
    with Server("gevent", "app:app", arguments=arguments) as server:
        until(lambda: "SSE_TIMOUT" in server.log, "the warning")
        [line] = [line for line in server.log.splitlines() if "SSE_TIMOUT" in line]
        [booted] = [line for line in server.log.splitlines() if "Booting worker with pid" in line]
    form = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[%s\] %s"
    assert re.fullmatch(form % ("INFO", "Booting worker with pid.*"), booted)
    assert re.fullmatch(form % ("WARNING", r"flask_sse_emitters\.state: the config key SSE_TIMOUT.*"), line)


def test_docs_every_block_is_run_or_listed_with_a_reason() -> None:
    blocks = [block for blocks in BLOCKS.values() for block in blocks]
    known = {*SHELL, *BROWSER, *PYTHON, *PARSERS, SQL, "text"}
    untested = [f"{each.page}:{each.line} ({each.language})" for each in runnable(blocks) if each.language not in known]
    assert not untested, "neither run, nor listed in docs_pages.NOT_RUN"
    assert set(NOT_RUN) <= {(block.page, block.first_line) for block in blocks}, "listed, but no longer there"


def test_docs_symptoms_quote_messages_that_there_are() -> None:
    text = (ROOT / "docs" / "troubleshooting.rst").read_text()
    code = "".join(file.read_text() for file in (ROOT / "flask_sse_emitters").rglob("*.py"))
    quoted = re.findall(r'says? "([^"]+)"|: "([^"]+)"\n~', text)
    assert len(quoted) >= 2
    assert [message for pair in quoted for message in pair if message not in code] == []


def test_docs_every_included_file_is_used_by_a_test() -> None:
    shown = [name for page in PAGES for name in re.findall(r"\.\. literalinclude:: (\S+)", page.read_text())]
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py") if file.name != Path(__file__).name)
    assert [name for name in shown if Path(name).name not in tests] == []


def test_docs_every_setting_is_documented_as_in_the_code() -> None:
    text = (ROOT / "docs" / "configuration.rst").read_text()
    found = re.findall(r"^\.\. confval:: (\w+)\n   :type: (.*)\n   :default: ``(.*)``\n\n   \S", text, re.MULTILINE)
    written = {name: (accepts.replace("``", ""), default) for name, accepts, default in found}
    app = Flask(__name__)
    SSE(app)
    defaults = {name: value for name, value in app.config.items() if name.startswith("SSE_")}
    assert written == {name: (_accepts(name), _as_written(value)) for name, value in defaults.items()}
    assert len(found) == len(written)


def _accepts(setting: str) -> str:
    """Return what the error for a wrong value says that the setting must be."""
    app = Flask(__name__)
    app.config[setting] = object()
    with pytest.raises(ValueError, match=f"{setting} must be ") as caught:
        SSE(app)
    return str(caught.value).removeprefix(f"{setting} must be ").partition(", not <object")[0]


def _as_written(default: object) -> str:
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return f'"{default}"' if isinstance(default, str) else repr(default)


def test_docs_reliability_names_an_existing_test_for_every_fault() -> None:
    text = (ROOT / "docs" / "reliability.rst").read_text()
    rows = [re.split(r"\n     - ", row) for row in re.findall(r"^   \* - (.*?)(?=^   \* - |^\S|\Z)", text, re.M | re.S)]
    faults = [row for row in rows if row[0] != "Fault"]
    assert len(faults) > 20
    for row in faults:
        assert len(row) == 5, row[0]
        named = re.findall(r"``([\w/]+/test_\w+)(?:::(\w+))?``", row[4])
        assert named, row[0]
        for module, name in named:
            written = (ROOT / "tests" / f"{module}.py").read_text()
            assert re.search(rf"^(def |class )?{name}\b", written, re.M), name


def test_docs_every_named_file_of_the_tests_exists() -> None:
    texts = [*MARKDOWN, *PAGES, *ROOT.glob("*/README.md"), ROOT / "Makefile", ROOT / "tests/security/fuzz/README.md"]
    named = {
        (path.name, found)
        for path in texts
        for found in re.findall(r"(?<!\w)tests/[\w/-]+(?:\.\w+)?", path.read_text())
        if not found.startswith("tests/test_")  # of the reader's own project
    }
    assert len(named) > 10
    assert {(text, found) for text, found in named if not (ROOT / found).exists()} == set()


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.name))
def test_docs_every_markdown_link_is_valid(page: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, anchor = unquote(target).partition("#")
            file = page.parent / path if path else page
            assert file.exists(), target
            assert not anchor or anchor in {_anchor(line) for line in re.findall(r"^#+ (.*)", file.read_text(), re.M)}


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub makes from a heading."""
    text = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading.strip())
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
