"""Run one scenario:

    python -m bench.reliability fuzz --requests 100000
    python -m bench.reliability overload --seconds 120
    python -m bench.reliability mishaps --seconds 40
    python -m bench.reliability soak --seconds 600

Each is bounded in time, ends its servers, prints one JSON object and exits with 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.reliability import fuzz, mishaps, overload, soak
from bench.reliability.scenario import Findings, Options

SCENARIOS: dict[str, Callable[[Options, Path], Findings]] = {
    "fuzz": fuzz.run,
    "overload": overload.run,
    "mishaps": mishaps.run,
    "soak": soak.run,
}
SECONDS = {"mishaps": 40.0, "soak": 600.0}  # where --seconds says nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=list(SCENARIOS))
    parser.add_argument("--requests", type=int, default=100_000, help="of fuzz (%(default)s)")
    parser.add_argument("--seconds", type=float, help="of the others (overload 120, mishaps 40, soak 600)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = Options(given.requests, given.seconds or SECONDS.get(given.scenario, 120.0), given.seed)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as parent:
        found = SCENARIOS[given.scenario](options, Path(parent) / "teacher")
    took = round(time.perf_counter() - begun)
    print(json.dumps({"scenario": given.scenario, "seconds": took, **found.figures}, indent=1))
    for line in found.broken[:20]:
        print(f"broken: {line}", file=sys.stderr)
    sys.exit(1 if found.broken else 0)


if __name__ == "__main__":
    main()
