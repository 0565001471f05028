"""Build the packages as they are published, and try them in empty environments.

``python -m tests.project.dist FOLDER``, which is ``make dist``. The folder then has a source distribution, a wheel and
the npm package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from tests.project.docs.docs_blocks import blocks_of, modules_of
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.servers import ROOT, bound
from tests.support.waiting import PATIENCE, until

#: What is no source.
NO_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "instance"
)

#: The extras that users install.
EXTRAS = ("", "server", "redis", "postgresql", "jwt", "metrics")

#: What only an extra can do, tried in its environment.
PROBES = {
    "jwt": "from flask_sse_emitters.access import jwt_authorizer; jwt_authorizer('k' * 32, algorithms=['HS256'])",
    "metrics": "import flask_sse_emitters.metrics",
}

#: Added to the quickstart's app: a broker that the environment may name, and the monitor page for everybody.
_MADE = "app = Flask(__name__)\n"
CONFIGURED = _MADE + "app.config.from_prefixed_env()\n"
MONITOR = """
app.register_blueprint(sse.monitor, url_prefix="/sse-monitor")
sse.monitor_access(lambda: True)
"""


class Built(NamedTuple):
    """A source distribution and a wheel."""

    sdist: Path
    wheel: Path


def run(*command: str | Path, folder: Path | None = None, **env: str) -> str:
    """Run a command to its end, and return what it has written."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=plain | env, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def tool(name: str) -> str:
    """Return a program that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def build(folder: Path, *options: str) -> Built:
    """Build both from a copy of the source, whose folder stays as it is, and check what an index would show.

    :param options: ``--no-isolation`` builds with what is installed here, and so installs nothing.
    """
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        shutil.copytree(ROOT, source, ignore=NO_SOURCE, symlinks=True)
        # Not "-m build": there may be a folder of that name.
        run(tool("pyproject-build"), *options, "--sdist", "--wheel", "--outdir", folder, source)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    run(tool("twine"), "check", "--strict", sdist, wheel)
    return Built(sdist, wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@contextmanager
def unpacked(sdist: Path) -> Iterator[Path]:
    """Yield the folder that a source distribution contains."""
    with tempfile.TemporaryDirectory() as place:
        run("tar", "-xzf", sdist, "-C", place)
        [folder] = Path(place).iterdir()
        yield folder


def wheel_of(source: Path, folder: Path) -> Path:
    """Build the wheel of a source distribution."""
    run(tool("pyproject-build"), "--no-isolation", "--wheel", "--outdir", folder, source)
    [wheel] = folder.glob("*.whl")
    return wheel


class Environment:
    """An environment that has a wheel, and a folder with the quickstart's app and page."""

    def __init__(self, place: Path, wheel: Path, extra: str = "", *, borrows: bool = False) -> None:
        """:param borrows: whether dependencies are those of this Python, and so are not installed."""
        self.python = place / "venv" / "bin" / "python"
        self.folder = place / "app"
        run(sys.executable, "-m", "venv", *(["--without-pip"] if borrows else []), place / "venv")
        [site] = (place / "venv" / "lib").glob("python*/site-packages")
        if borrows:
            # .pth files in the folders that a .pth file names, as of an editable installation, are not read.
            paths = {sysconfig.get_path("purelib"), *filter(lambda path: path.endswith("site-packages"), sys.path)}
            (site / "borrowed.pth").write_text("\n".join(paths))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)  # which is how a wheel of plain Python is installed
        else:
            run(self.python, "-m", "pip", "install", "--quiet", f"{wheel}[{extra}]" if extra else wheel)
            run(self.python, "-m", "pip", "check")
        self._write_quickstart()

    def _write_quickstart(self) -> None:
        self.folder.mkdir()
        blocks = blocks_of(ROOT / "docs" / "quickstart.rst")
        [page] = [block.text for block in blocks if block.language == "html"]
        (self.folder / "static").mkdir()
        (self.folder / "static" / "index.html").write_text(page)
        for name, text in modules_of(blocks).items():
            (self.folder / name).write_text(text.replace(_MADE, CONFIGURED) + (MONITOR if name == "app.py" else ""))

    def run(self, *arguments: str, **env: str) -> str:
        return run(self.python, *arguments, folder=self.folder, FLASK_APP="app", **env)

    @contextmanager
    def serve(self, server: str, **env: str) -> Iterator[int]:
        """Run the app, and yield its port."""
        with bound(0) as listener:
            port = listener.getsockname()[1]
        arguments = {"flask": ["run", "--port", str(port)], "gunicorn": ["--bind", f"127.0.0.1:{port}", "app:app"]}
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            [self.python, "-m", server, *arguments[server]],
            cwd=self.folder,
            env=plain | {"FLASK_APP": "app"} | env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: process.poll() is not None or _responds(port), f"{server} to respond")
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _responds(port: int) -> bool:
    with suppress(OSError, HTTPException):
        return bool(fetch(port, "GET", "/static/index.html"))
    return False


def fetch(port: int, method: str, path: str, body: object = None) -> str:
    """Return what a request gets, which must be a success."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        assert response.status < 300, f"{path}: {response.status}"
        return response.read().decode()
    finally:
        connection.close()


def try_quickstart(port: int) -> None:
    """Post a note, and read it from the stream of the page."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/events?channel=board")
    stream = connection.getresponse()
    fetch(port, "POST", "/notes", {"text": "hello"})
    lines = iter(stream.readline, b"")
    assert any(b'{"text":"hello"}' in line.replace(b" ", b"") for line in lines)
    stream.close()
    connection.close()


def try_files(port: int) -> None:
    """Fetch the monitor page and the browser module, and whatever they load."""
    for start in ("/sse-monitor/", "/events/static/sse-emitters.js"):
        found, wanted = set(), {start}
        while wanted:
            path = wanted.pop()
            text = fetch(port, "GET", path)
            found.add(path)
            named = re.findall(r'(?:from |import |src=|href=)"(?:\./)?([\w/.-]+\.(?:js|css|svg))"', text)
            folder = path.rpartition("/")[0]
            wanted |= {f"{folder}/{name}" if name[0] != "/" else name for name in named} - found
        assert len(found) > 8, sorted(found)


def try_commands(environment: Environment, port: int, **env: str) -> None:
    """Run ``flask sse``: what is published arrives."""
    url = f"http://127.0.0.1:{port}/events?channel=board"
    assert environment.run("-m", "flask", "sse", "check", url, **env)
    if "FLASK_SSE_BROKER_URL" in env:  # else the app has a broker of its own in each process
        assert environment.run("-m", "flask", "sse", "status", **env)
        assert environment.run("-m", "flask", "sse", "publish", "board", "hello", **env)


def try_wheel(environment: Environment, extra: str, stack: ExitStack) -> None:
    """Do with an installed wheel what a user does first, and what only this extra can do."""
    place = environment.run("-c", "import flask_sse_emitters; print(flask_sse_emitters.__file__)").strip()
    assert Path(place).is_relative_to(environment.python.parents[1])
    env = {"FLASK_SSE_HEARTBEAT": "1"}  # for which the check waits
    if extra in PROBES:
        environment.run("-c", PROBES[extra])
    if extra == "redis":
        env["FLASK_SSE_BROKER_URL"] = stack.enter_context(RedisServer()).url
    if extra == "postgresql":
        env["FLASK_SSE_BROKER_URL"] = stack.enter_context(PostgresqlServer()).url()
    server = "gunicorn" if extra == "server" else "flask"
    with environment.serve(server, **env) as port:
        try_quickstart(port)
        try_files(port)
        try_commands(environment, port, **env)


def try_source(source: Path, tests: Sequence[str] = ("tests/unit",)) -> str:
    """Run tests of a source distribution in its folder, with the dependencies of this Python."""
    options = ["-q", "-p", "no:cacheprovider", "-n0"]
    return run(sys.executable, "-m", "pytest", *options, *tests, folder=source)


def pack_npm(folder: Path) -> Path:
    """Pack the npm package, and return it."""
    npm = ROOT / "build" / "npm"
    with tempfile.TemporaryDirectory(dir=npm) as place:
        run("node", ROOT / "npm" / "build.mjs", place)
        run("npm", "pack", "--silent", "--pack-destination", folder.resolve(), folder=Path(place))
    [packed] = folder.glob("flask-sse-emitters-*.tgz")
    return packed


def main(folder: Path) -> None:
    """Build and try everything, and say what was done."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    built: list[Built] = []
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        step("build, and twine check --strict", lambda: built.append(build(folder)))
        [(sdist, wheel)] = built
        source = stack.enter_context(unpacked(sdist))
        step("the unit tests of the source distribution", lambda: try_source(source))
        again = wheel_of(source, Path(place))
        assert contents(again) == contents(wheel), "the source distribution builds another wheel"
        for extra in EXTRAS:
            here = Path(place) / f"with-{extra or 'nothing'}"
            here.mkdir()
            environment = Environment(here, wheel, extra)
            step(f"the wheel in an empty environment: [{extra}]", lambda: try_wheel(environment, extra, stack))  # noqa: B023
        step("the npm package", lambda: pack_npm(folder))
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>9}  {path}")  # noqa: T201


def step(name: str, action: Callable[[], object]) -> None:
    began = time.monotonic()
    action()
    print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
