"""A real nginx in a temporary folder, with the configuration for users: ``deploy/nginx.conf``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import trustme

from tests.support.programs import program
from tests.support.servers import ROOT, bound
from tests.support.waiting import PATIENCE, until

CONFIG = ROOT / "deploy" / "nginx.conf"


class Nginx:
    """An nginx that runs in a ``with`` block.

    :param app: the path of the socket at which gunicorn listens.
    :param changes: of the configuration; what each replaces must be there.
    """

    def __init__(self, app: Path, changes: dict[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self._held = [bound(0), bound(0)]
        self.plain_port, self.port = (held.getsockname()[1] for held in self._held)
        self.authority = trustme.CA()
        self._app = app
        self._changes = changes or {}

    def __enter__(self) -> Nginx:
        folder = Path(self._folder.name)
        self.certificate = folder / "authority.pem"
        self.authority.cert_pem.write_to_path(str(self.certificate))
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        (folder / "nginx.conf").write_text(self._config(folder))
        self._log = folder / "stderr.log"
        with self._log.open("wb") as log:
            command = [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
            self._process = subprocess.Popen(
                [*command, "-e", "stderr", "-g", "daemon off;"], stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, "nginx to answer")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
        for held in self._held:
            held.close()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _config(self, folder: Path) -> str:
        """Return the configuration for users, with the paths and ports of this test."""
        text = CONFIG.read_text()
        here = {
            "user www-data;": "user root;" if os.getuid() == 0 else "",  # tests have sockets in folders of their own
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/": f"{folder}/",
            "unix:/run/flask-sse.sock": f"unix:{self._app}",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "server_name example.com;": "server_name localhost;",
            "/etc/ssl/example.com.pem": f"{folder}/server.pem",
            "/etc/ssl/example.com.key": f"{folder}/server.pem",
            "worker_processes auto;": "worker_processes 1;",
        }
        for before, after in [*self._changes.items(), *here.items()]:
            assert before in text, f"deploy/nginx.conf has no {before!r}"
            text = text.replace(before, after)
        return text.replace("http {", "http {\n" + _temporary_paths(folder), 1)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"nginx did not start: {self.log}")
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False


def _temporary_paths(folder: Path) -> str:
    """Return directives that put temporary files here, not into a folder of root."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
