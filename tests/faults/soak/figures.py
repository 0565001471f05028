"""The figures that the soak samples from outside, and whether they grow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

#: Pairs of points of a series that are used at most.
_MAX_PAIRS = 10_000

#: Number of times that a fit is repeated with other blocks of the same series.
_RESAMPLES = 200

#: Seconds for which residuals correlate: the length of the blocks that are resampled.
_BLOCK_SECONDS = 30.0

_HOUR = 3600.0


@dataclass(frozen=True)
class Held:
    """What a process holds: memory in bytes, with and without shared pages; numbers of descriptors and threads."""

    resident: int
    private: int
    descriptors: int
    threads: int


def held(pid: int) -> Held:
    """Return what a process holds.

    :raises OSError: if the process is gone.
    """
    process = Path(f"/proc/{pid}")
    memory = {
        line.partition(":")[0]: int(line.split()[1]) * 1024
        for line in (process / "smaps_rollup").read_text().splitlines()[1:]
    }
    return Held(
        memory["Rss"],
        memory["Private_Clean"] + memory["Private_Dirty"],
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
    )


@dataclass(frozen=True)
class Trend:
    """The trend of a series per hour: the Theil-Sen slope, and its 95 % interval."""

    slope: float
    least: float
    most: float
    noise: float  #: half of the points are no further from the line

    def __str__(self) -> str:
        return f"{self.slope:+.2f} an hour (95 %: {self.least:+.2f} to {self.most:+.2f}; noise {self.noise:.2f})"


@dataclass(frozen=True)
class Verdict:
    """The result of a check. A slope above its limit never passes, however wide its interval is."""

    what: str
    passed: bool
    found: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.what}: {self.found}"


def trend(times: Sequence[float], values: Sequence[float], seed: int = 0) -> Trend:
    """Return how much a series grows in an hour, robust against outliers.

    The interval comes from series made of the line and of blocks of residuals: neighbours correlate, which an interval
    for independent points would ignore.

    :param times: in seconds, ascending, at even distances; at least three.
    """
    dice = random.Random(seed)
    slope = _slope(times, values, dice)
    middle = median(value - slope * at for at, value in zip(times, values, strict=True))
    left = [value - middle - slope * at for at, value in zip(times, values, strict=True)]
    size = max(1, round(_BLOCK_SECONDS * (len(times) - 1) / (times[-1] - times[0])))
    slopes = sorted(_slope(times, _shuffled(left, size, dice), dice, _MAX_PAIRS // 10) for _ in range(_RESAMPLES))
    error = slopes[int(0.025 * _RESAMPLES)], slopes[int(0.975 * _RESAMPLES)]
    noise = median(map(abs, left))
    return Trend(slope * _HOUR, (slope + error[0]) * _HOUR, (slope + error[1]) * _HOUR, noise)


def judge(what: str, found: Trend, limit: float) -> Verdict:
    """Judge whether a series is flat: it grows by no more than ``limit`` in an hour."""
    if found.slope <= limit:
        word = "flat" if found.most <= limit else "flat, though it cannot be told from growth in so short a time"
    else:
        word = "grows" if found.least > limit else "grows, or its noise does: it cannot be told in so short a time"
    return Verdict(what, found.slope <= limit, f"{word}: {found}; at most {limit:+g}")


def _slope(times: Sequence[float], values: Sequence[float], dice: random.Random, most: int = _MAX_PAIRS) -> float:
    count = len(times)
    if count * (count - 1) // 2 <= most:
        pairs = [(left, right) for right in range(count) for left in range(right)]
    else:
        pairs = [(left, right) for left, right in (_pair(count, dice) for _ in range(most)) if left != right]
    return median((values[right] - values[left]) / (times[right] - times[left]) for left, right in pairs)


def _pair(count: int, dice: random.Random) -> tuple[int, int]:
    return int(dice.random() * count), int(dice.random() * count)


def _shuffled(left: Sequence[float], size: int, dice: random.Random) -> list[float]:
    values: list[float] = []
    while len(values) < len(left):
        begin = dice.randrange(max(1, len(left) - size + 1))
        values += left[begin : begin + size]
    return values[: len(left)]
