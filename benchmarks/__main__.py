"""``python -m benchmarks``"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from .figures import FIGURES
from .measure import Journal, Results
from .plan import QUICK, Plan
from .plot import draw
from .processes import LOAD_CORE, SERVER_CORE, BenchmarkFailed, alone, raise_limits
from .report import as_json, machine, show, show_targets, source
from .subjects import SUBJECTS, Subject

_RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="This package and its peers at the same work."
    )
    parser.add_argument("--quick", action="store_true", help="a short look: few clients, one run")
    parser.add_argument("--only", type=names, metavar="NAME,...", help=", ".join(subject.name for subject in SUBJECTS))
    parser.add_argument("--figures", type=names, metavar="NAME,...", default=list(FIGURES), help=", ".join(FIGURES))
    parser.add_argument("--clients", type=counts, metavar="N,...", help="with so many, where a figure has a choice")
    parser.add_argument("--runs", type=int, help="runs of each subject, in turns; 3, or 1 with --quick")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder of the JSON, the log and the plot")
    parser.add_argument("--name", default="results", help="what these files are called, without their endings")
    given = parser.parse_args()
    for known, chosen in (([subject.name for subject in SUBJECTS], given.only or []), (list(FIGURES), given.figures)):
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return given


def names(text: str) -> list[str]:
    return text.split(",")


def counts(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(count.replace("_", "")) for count in text.split(",")))


def plan_for(given: argparse.Namespace) -> Plan:
    plan = QUICK if given.quick else Plan()
    if given.clients is None:
        return plan
    most = max(given.clients)
    return dataclasses.replace(
        plan,
        clients=given.clients,
        burst_clients=given.clients,
        memory_clients=most,
        idle_clients=most,
        convoy_clients=most,
        users_clients=most,
        single_clients=most,
        storm_clients=most,
    )


def subjects_for(given: argparse.Namespace, journal: Journal) -> list[Subject]:
    chosen = [subject for subject in SUBJECTS if given.only is None or subject.name in given.only]
    present = []
    for subject in chosen:
        if missing := subject.missing():
            journal.say(f"{subject.name} is left out: {missing}")
        else:
            present.append(subject)
    return present


def measure(given: argparse.Namespace, plan: Plan, runs: int, subjects: list[Subject], journal: Journal) -> Results:
    """In turns, so that what the machine does meanwhile hits all alike."""
    results = Results()
    for name in given.figures:
        figure = FIGURES[name]
        of_whom = given.only or (figure.quick if given.quick else ()) or figure.subjects
        times = min(runs, figure.most_runs or runs)
        for run in range(1, times + 1):
            for subject in subjects:
                if subject.name in figure.subjects and subject.name in of_whom:
                    journal.note(f"{name}, run {run} of {times}: {subject.name}")
                    try:
                        figure.run(subject, plan, results)
                    except BenchmarkFailed as error:
                        raise BenchmarkFailed(f"{name} of {subject.name}: {error}") from error
    return results


def run(given: argparse.Namespace, journal: Journal) -> None:
    plan, runs = plan_for(given), given.runs or (1 if given.quick else 3)
    facts = machine()
    if raise_limits() < max(plan.clients) + 200:
        raise BenchmarkFailed(f"{max(plan.clients):,} clients need more file descriptors than may be open: ulimit -n")
    if SERVER_CORE == LOAD_CORE:
        journal.say("There is only one core: the load client takes its time from the servers.")
    journal.say(", ".join(f"{key} {value}" for key, value in facts.items() if value is not None))
    results = measure(given, plan, runs, subjects_for(given, journal), journal)
    show(results, journal)
    show_targets(results, journal)
    facts["source_changed"] = source() != facts["source"]
    if facts["source_changed"]:
        journal.say()
        journal.say("The code of this package changed while this ran: what it says of ours is worth nothing.")
    (given.output / f"{given.name}.json").write_text(as_json(results, plan, runs, facts))
    if not draw(results, given.output / f"{given.name}.svg"):
        journal.say("no plot: matplotlib is missing, or nothing that is drawn was measured")


def main() -> int:
    given = arguments()
    given.output.mkdir(parents=True, exist_ok=True)
    journal = Journal()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is started is stopped in either case
    try:
        with alone(), (given.output / f"{given.name}.log").open("w") as journal.file:
            run(given, journal)
    except BenchmarkFailed as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
