"""Processes of their own: on which core they run, what they cost, and that none of them stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

#: The applications are imported from here.
ROOT = Path(__file__).parent.parent

#: What 19,000 clients and their server need.
DESCRIPTORS = 65_536

_CORES = sorted(os.sched_getaffinity(0))

#: Where there is only one core, the load client disturbs what it measures; the report says so.
SERVER_CORE, LOAD_CORE = (_CORES[0], _CORES[1]) if len(_CORES) > 1 else (_CORES[0], _CORES[0])


class BenchmarkFailed(Exception):
    """What was measured is worth nothing: something did not start, or did the work wrong."""


def raise_limits() -> int:
    """Let this process and its children open as many descriptors as they need, or else as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, DESCRIPTORS), hard):
        with contextlib.suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
    return soft


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Children inherit the core of their parent: start them in here."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One run at a time on this machine: two would measure each other."""
    with (Path(tempfile.gettempdir()) / f"flask-sse-emitters-benchmarks-{os.getuid()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Program:
    """A program in a session of its own, so that it ends together with all its children."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        core: int = SERVER_CORE,
        env: Mapping[str, str] | None = None,
        *,
        cwd: Path = ROOT,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self._stop_signal = stop_signal
        self._log = folder / f"{Path(command[0]).name}.log"
        with on_core(core), self._log.open("ab") as log:
            self._process = subprocess.Popen(
                list(command),
                cwd=cwd,
                user=user,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what it has written."""
        return self._log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """At once: nothing is waited for that it still has open."""
        left = [self.pid, *children(self.pid)]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, self._stop_signal)
        self._process.wait()
        deadline = time.monotonic() + 10
        while any(map(_runs, left)) and time.monotonic() < deadline:
            time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Not where it has ended, and only its parent does not know yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of these processes in nanosecond steps, with that of their threads that have ended.

    From the CPU clock of each, as clock_getcpuclockid(3) would name it: the sum of ``/proc/PID/task/*/schedstat``
    forgets the threads that ended, and ``/proc/PID/stat`` counts in steps of 10 ms.
    """
    with _still_there():
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def family_seconds(pid: int) -> float:
    """CPU time of a process and its children, also of those that have ended, which counts in steps of 10 ms."""
    with _still_there():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return ended + cpu_seconds([pid, *children(pid)])


def busy_seconds() -> float:
    """CPU time that all cores have spent on anything, also for others on the same host, in steps of 10 ms."""
    user, nice, system, _idle, _waits, interrupts, soft, steal, *_ = map(int, _first_line("/proc/stat").split()[1:])
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def kernel_bytes() -> int:
    """What the kernel of this machine holds for itself, among it the sockets of all."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["Slab"].split()[0]) * 1024


def _first_line(path: str) -> str:
    with Path(path).open() as file:
        return file.readline()


def connections(pid: int, port: int) -> int:
    """How many of the connections to this port a process has open."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    there = {f"socket:[{line[9]}]" for line in lines if int(line[1].split(":")[1], 16) == port and line[3] == "01"}
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            own.add(str(link.readlink()))
    return len(own & there)


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes, where what they share counts once."""
    with _still_there():
        return sum(_pss_bytes(pid) for pid in pids)


@contextlib.contextmanager
def _still_there() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BenchmarkFailed(f"a process of the server has ended: {error}") from error


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkFailed(f"/proc/{pid}/smaps_rollup has no Pss")


def compiled(source: Path, folder: Path) -> Path:
    """The program that a C file is, in this folder."""
    program = folder / source.stem
    if not program.exists():
        command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkFailed(f"cannot compile {source.name}: {done.stderr}")
    return program
