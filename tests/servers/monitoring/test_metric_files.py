"""The files in which one of several processes keeps its metrics: when they are written, and what fills the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest

from tests.support.programs import program
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

#: The beginning of each script that runs in a process of its own.
SCRIPT = """
import atexit, gc, os, struct, sys, threading
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from flask_sse_emitters import SSE, metrics

metrics.INTERVAL = 0.01

def values():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    try:
        lines = generate_latest(registry).decode().splitlines()
    except struct.error:  # a file has just been made, and prometheus_client does not know empty ones
        return {}
    return dict(line.split() for line in lines if not line.startswith("#"))

def files():
    return sorted(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))

def until(condition):
    while not condition():
        threading.Event().wait(0.005)

app = Flask("app")
sse = SSE(app)
own = CollectorRegistry()
metrics.SseMetrics(sse, registry=own)
"""


def run(script: str, folder: Path | str, *within: str, cwd: Path = ROOT) -> None:
    """Run a script in a process of its own.

    :param within: a command that runs it.
    """
    done = subprocess.run(
        # prometheus_client leaves its files open until the process ends, which may be warned of.
        [*within, sys.executable, "-W", "error", "-W", "ignore:unclosed file:ResourceWarning", "-c", SCRIPT + script],
        cwd=cwd,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        timeout=PATIENCE,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_metric_files_are_not_written_if_folder_name_is_empty(tmp_path: Path) -> None:
    script = """
from flask_sse_emitters.gunicorn import child_exit
from types import SimpleNamespace
sse.publish("a", "x")
child_exit(None, SimpleNamespace(pid=os.getpid()))
assert "sse_events_published_total 1.0" in generate_latest(own).decode()
"""
    run(script, "", cwd=tmp_path)
    assert not list(tmp_path.iterdir()), "prometheus_client would write its files there"


def test_metric_files_and_thread_come_with_the_first_figures(tmp_path: Path) -> None:
    run("generate_latest(own); assert threading.active_count() == 1 and not files(), files()", tmp_path)
    assert not list(tmp_path.iterdir()), "nor at exit"


def test_metric_files_of_forked_child_count_from_zero(tmp_path: Path) -> None:
    run(
        """
for number in range(3):
    sse.publish("a", number)
until(lambda: values().get("sse_events_published_total") == "3.0")
child = os.fork()
if not child:
    try:
        sse.publish("a", "of the child")
        assert "sse_events_published_total 1.0" in generate_latest(own).decode()
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(0)
    finally:
        os._exit(1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert f"counter_{child}.db" in files(), files()
assert not any(name.startswith("gauge_live") and str(child) in name for name in files()), files()
sse.publish("a", "of the parent")
until(lambda: values()["sse_publish_seconds_count"] == "5.0")
assert values()["sse_events_published_total"] == "5.0"
assert abs(float(values()["sse_publish_seconds_sum"]) - sse.stats()["publish"]["seconds"]) < 1
""",
        tmp_path,
    )


def test_metric_files_are_not_being_written_while_a_process_forks(tmp_path: Path) -> None:
    """prometheus_client has one lock for all of them, which nothing would release in the child."""
    run(
        """
from prometheus_client.mmap_dict import MmapedDict
write, is_amid = MmapedDict.write_value, threading.Event()

def write_slowly(*arguments):
    is_amid.set()
    threading.Event().wait(0.02)
    write(*arguments)

MmapedDict.write_value = write_slowly
sse.publish("a", 1)
is_amid.wait()
MmapedDict.write_value = write
child = os.fork()
if not child:
    sse.publish("a", 2)
    atexit._run_exitfuncs()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
until(lambda: values().get("sse_events_published_total") == "2.0")
""",
        tmp_path,
    )


def test_metric_files_have_separate_names_for_two_apps(tmp_path: Path) -> None:
    run(
        """
shop = SSE(Flask("shop"))
metrics.SseMetrics(shop, registry=CollectorRegistry(), prefix="shop_sse")
gc.collect()
sse.publish("a", 1)
shop.publish("a", 1)
shop.publish("a", 2)
until(lambda: values().get("sse_events_published_total") == "1.0")
until(lambda: values().get("shop_sse_events_published_total") == "2.0")
""",
        tmp_path,
    )


#: Runs a command with a private file system of 512 kB at the folder of the metrics.
SMALL_DISK = 'mount -t tmpfs -o size=512k small "$PROMETHEUS_MULTIPROC_DIR" && exec "$@"'


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """A command that runs another one with a small file system at this folder; skip if no mount is allowed."""
    unshare = program("unshare", "util-linux")
    for way in ("-Urm", "-m"):  # as a user, as root
        command = [unshare, way, "sh", "-c", SMALL_DISK, "sh"]
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        tried = subprocess.run([*command, "true"], env=env, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return command
    pytest.skip(f"no file system can be mounted here: {tried.stderr}")


def test_metric_files_on_full_disk_stop_no_stream(small_disk: list[str], tmp_path: Path) -> None:
    """prometheus_client alone would let the process die of SIGBUS."""
    run(
        """
import logging
from contextlib import suppress
from flask_sse_emitters.testing import open_stream

said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage()) if record.levelname == "WARNING" else None
logging.getLogger("flask_sse_emitters.metrics").addHandler(handler)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.channel("a", public=True)
full = os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], "full")
with suppress(OSError), open(full, "wb", buffering=0) as file:
    while file.write(bytes(4096)):
        pass

with open_stream(app.test_client(), "/events?channel=a") as stream:
    for number in range(20):
        sse.publish("a", number)
        threading.Event().wait(0.01)  # so that it tries more than once
    assert len(stream.ready()) == 20
    until(lambda: said and files() == ["full"])  # it has tried to write, and removed what was begun
    [warning] = said
    assert "No space left on device" in warning and "logged once" in warning, warning
    os.remove(full)
    sse.publish("a", "there is room again")
    until(lambda: values().get("sse_events_published_total") == "21.0")
    assert len(said) == 1
""",
        tmp_path,
        *small_disk,
    )


def test_metric_files_with_metrics_of_the_app_keep_them(tmp_path: Path) -> None:
    run(
        """
from prometheus_client import Counter
orders = Counter("orders", "Those of the app.", ["kind"])
for number in range(720):  # the file has to grow for the next ones
    orders.labels(str(number)).inc(7)
sse.publish("a", 1)
until(lambda: values().get("sse_events_published_total") == "1.0")
assert values()['orders_total{kind="719"}'] == "7.0"
for name in files():
    path = os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], name)
    with open(path, "rb") as file:
        [used] = struct.unpack("i", file.read(4))
    is_shared = name.startswith("counter")
    assert used > 1 << 16 if is_shared else used < 3_000, (name, used)
    found = os.stat(path)
    room = found.st_blocks * 512
    assert found.st_size >= 1 << 16
    assert room >= (used if is_shared else 1 << 14), (name, used, found)
    assert room < 1 << 16 or is_shared, (name, found)
""",
        tmp_path,
    )


def test_metric_files_have_all_gauges_if_first_request_is_a_scrape(tmp_path: Path) -> None:
    run(
        """
metrics.INTERVAL = 3600
app.get("/metrics")(values)
assert not files()
found = app.test_client().get("/metrics").json
assert found["sse_broker_up"] == "1.0"
assert (found['sse_clients{outlet="server"}'], found['sse_clients{outlet="handed_off"}']) == ("0.0", "0.0")
assert found['sse_streams_refused_total{limit="SSE_MAX_CLIENTS"}'] == "0.0"
""",
        tmp_path,
    )


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """An environment with all installed packages except prometheus_client."""
    assert prometheus_client.__file__
    packages = Path(prometheus_client.__file__).parent.parent
    for package in packages.iterdir():
        if not package.name.startswith("prometheus"):
            (tmp_path / package.name).symlink_to(package)
    return {**os.environ, "PYTHONPATH": str(tmp_path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}


def test_metrics_import_without_extra_names_package_to_install(without: dict[str, str]) -> None:
    script = """
from flask import Flask
from flask_sse_emitters import SSE
from flask_sse_emitters.gunicorn import child_exit
SSE(Flask("app")).stats()
child_exit(None, None)
import flask_sse_emitters.metrics
"""
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=without, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    needs = "ImportError: metrics need the package prometheus-client: pip install 'flask-sse-emitters[metrics]'"
    assert done.stderr.splitlines()[-1] == needs
    assert "child_exit" not in done.stderr
