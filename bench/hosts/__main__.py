"""Three teachers, two trainers and a name server, each a host of its own, and what may happen to hosts:

    python -m bench.hosts                                      everything, each in a pair of runs of its own
    python -m bench.hosts cut half-open --together --pace 0.7  both in one pair of runs, which is shorter
    python -m bench.hosts balance                              how requests are spread over teachers

It needs root (network namespaces) and dnsmasq; elsewhere it says so and exits with 0. It is bounded in time, ends its
processes, prints one JSON object and exits with 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.hosts.balance import balance
from bench.hosts.labels import labels
from bench.hosts.mishaps import MISHAPS
from bench.hosts.network import why_not
from bench.hosts.stage import Stage
from bench.reliability.scenario import Findings
from tests.integration.runs import assert_undisturbed

LATE_S = 3.0  # beside the deadline, on two cores for seven processes
ALL = (*MISHAPS, "labels", "balance")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"{', '.join(ALL)} (all)")
    parser.add_argument("--together", action="store_true", help="one after the other in one pair of runs")
    parser.add_argument("--pace", type=float, default=2.0, help="seconds that every answer takes (%(default)s)")
    given = parser.parse_args()
    if unknown := set(given.what) - set(ALL):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if reason := why_not():
        print(f"hosts: skipped: {reason}")
        return
    found, names = Findings(), given.what or list(ALL)
    with tempfile.TemporaryDirectory() as parent:
        if mishaps := [name for name in names if name != "balance"]:
            with Stage(Path(parent), given.pace) as stage:
                for group in [mishaps] if given.together else [[name] for name in mishaps]:
                    _promised(stage, group, given.pace, found)
        if "balance" in names:
            balance(Path(parent), found)
    print(json.dumps(found.figures, indent=1))
    for line in found.broken[:20]:
        print(f"broken: {line}", file=sys.stderr)
    sys.exit(1 if found.broken else 0)


def _promised(stage: Stage, names: list[str], pace_s: float, found: Findings) -> None:
    title = "+".join(names)
    begun = time.perf_counter()
    try:
        stage.recover()
        found.figures[title] = labels(stage) if names == ["labels"] else _disturbed(stage, names, pace_s, found)
    except AssertionError as error:
        found.promise(False, f"{title}: {error}")
    took = time.perf_counter() - begun
    print(f"hosts: {title}: {found.figures.get(title, 'failed')} in {took:.0f} s", file=sys.stderr)


def _disturbed(stage: Stage, names: list[str], pace_s: float, found: Findings) -> dict[str, Any]:
    """Both runs are the undisturbed one, and no step waited longer than it may."""
    title = "+".join(names)
    with stage.training(title) as runs:
        for name in names:
            MISHAPS[name].happens(stage, runs)
        runs.end(200)
    calls = [assert_undisturbed(run.out, stage.undisturbed)["teacher_calls"] for run in runs.each]
    waits, patience = runs.waits(), max(MISHAPS[name].patience_s for name in names)
    found.promise(max(waits) < patience + pace_s + LATE_S, f"{title}: a step waited {max(waits):.1f} s")
    return {
        "longest_wait_s": [round(wait, 1) for wait in waits],
        "calls": [each["calls"] for each in calls],
        "asked_again": [each["retries"] for each in calls],
        "waited_for_a_teacher_s": [round(each["waited_s"], 1) for each in calls],
    }


if __name__ == "__main__":
    main()
