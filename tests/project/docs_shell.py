"""Run the shell commands of the documentation as a reader would, in a folder with the page's ``app.py``."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from configparser import ConfigParser
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from importlib.metadata import distribution
from pathlib import Path

from tests.support.programs import program
from tests.support.servers import NO_CONTROL_SOCKET, ROOT
from tests.support.waiting import PATIENCE, until

#: Commands that run until they are interrupted: here, after their first output.
LASTING = re.compile(r"flask sse listen|curl .*-\w*N")

#: Exit statuses of a command that was interrupted, or had ended by itself.
INTERRUPTED = (0, 130, -signal.SIGINT)

_COMPOUND = re.compile(r"^(for|while|until|if) ", re.MULTILINE)
_ADDRESS = re.compile(r"(localhost|127\.0\.0\.1|0\.0\.0\.0):\d+")
_ASSIGNED = re.compile(r"[A-Z_]+=")
_EXTRAS = re.compile(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:[<>=!~].*)?")


def commands_of(text: str) -> list[str]:
    """Return the commands of a block: lines with their continuations, or the whole block if it has a loop."""
    if _COMPOUND.search(text):
        return [text]
    lines = text.replace("\\\n", " ").split("\n")
    return [line.removeprefix("$ ") for line in lines if line.strip() and not line.startswith("#")]


def run(command: str, folder: Path, env: dict[str, str]) -> None:
    """Run a command as it is, or check that it could run if it cannot run here."""
    words = [word for word in shlex.split(command, comments=True) if not _ASSIGNED.match(word)]
    for beginning, check in _INSTEAD.items():
        if words[: len(beginning)] == list(beginning):
            check(words[len(beginning) :])
            return
    if words[0] == "curl":
        program("curl", "curl")
    if words[0] == "gunicorn":
        _run_server(words, folder, environment(folder, env))
        return
    runs = _run_for_a_while if LASTING.search(command) else _run_to_its_end
    runs(command, folder, environment(folder, env))


def _run_to_its_end(command: str, folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}"


def _run_server(words: list[str], folder: Path, env: dict[str, str]) -> None:
    """Run a server until it responds, on a free port in place of the named one."""
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryFile("w+") as log:
        here = f"fd://{listener.fileno()}"
        named = [here if _ADDRESS.fullmatch(word) else word for word in words]
        command = [*named, *NO_CONTROL_SOCKET, *([] if here in named else ["--bind", here])]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        address = listener.getsockname()
        try:
            until(lambda: process.poll() is not None or _answers(address), f"an answer of {command}")
            log.seek(0)
            assert process.poll() is None, f"{command}: exit status {process.returncode}\n{log.read()}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def _answers(address: tuple[str, int]) -> bool:
    connection = HTTPConnection(*address, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _run_for_a_while(command: str, folder: Path, env: dict[str, str]) -> None:
    """Run a command on a terminal, so that it writes each line at once and an interrupt ends it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        output = _first_output(ours, process)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        os.close(ours)
    assert output, f"{command}: no output, exit status {process.returncode}\n{errors.decode()}"
    assert process.returncode in INTERRUPTED, f"{command}: exit status {process.returncode}\n{errors.decode()}"


def _first_output(terminal: int, process: subprocess.Popen[bytes]) -> bytes:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        readable, _, _ = select.select([terminal], [], [], 0.05)
        if readable:
            try:
                return os.read(terminal, 1000)
            except OSError:  # its last writer has closed the terminal
                return b""
        if process.poll() is not None:
            return b""
    return b""


def environment(folder: Path, env: dict[str, str]) -> dict[str, str]:
    (folder / ".curlrc").write_text(f"fail\nmax-time = {PATIENCE:g}\n")
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "CURL_HOME": str(folder),
        "FLASK_APP": "app",
        **env,
    }


def _check_make_targets(targets: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the Makefile has no {target}"


def _check_requirements(requirements: list[str]) -> None:
    """Check that our extras exist, and that other packages are installed here."""
    extras = ConfigParser()
    extras.read(ROOT / "setup.cfg")
    for requirement in (word for word in requirements if not word.startswith("-")):
        found = _EXTRAS.fullmatch(requirement)
        assert found, f"pip install {requirement}"
        if found[1] != "flask-sse-emitters":
            distribution(found[1])
            continue
        for extra in filter(None, (found[2] or "").split(",")):
            assert extras.has_option("options.extras_require", extra), f"setup.cfg has no extra {extra}"


_INSTEAD: dict[tuple[str, ...], Callable[[list[str]], None]] = {
    ("make",): _check_make_targets,
    ("pip", "install"): _check_requirements,
}
