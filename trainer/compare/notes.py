"""What the numbers of a comparison cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from trainer.compare.arms import Arm
from trainer.compare.comparison import Method, Row
from trainer.compare.significance import LEVEL, least_p

FEWEST = 6  # differences of which signed ranks can give p below LEVEL: 2 / 2**6 < 0.05


def notes(rows: Sequence[Row], arms: Sequence[Arm], method: Method) -> list[str]:
    """A sentence for each."""
    found = []
    by_name = {arm.name: arm for arm in arms}
    for (mine, theirs), group in groupby(rows, key=lambda row: (row.arm, row.baseline)):
        found += _of_seeds(by_name[mine], by_name[theirs], sum(row.p_seeds is not None for row in rows), method)
        for row in group:
            if row.differing is not None and row.differing < FEWEST:
                found.append(
                    f"{mine} - {theirs}, {row.figure}: {row.differing} of {row.n} common trips differ; "
                    f"signed ranks of fewer than {FEWEST} cannot give p below {LEVEL}"
                )
    tests = sum(row.p is not None for row in rows)
    if tests and tests / (1 + method.draws.count) > LEVEL:
        found.append(
            f"{method.draws.count} draws give no p below {1 / (1 + method.draws.count):.2g}: too few for {tests} tests"
        )
    return found


def _of_seeds(mine: Arm, theirs: Arm, tests: int, method: Method) -> list[str]:
    sizes = len(mine.runs), len(theirs.runs)
    if min(sizes) < 2:
        one = " and ".join(arm.name for arm in (mine, theirs) if len(arm.runs) < 2)
        return [
            f"{one}: a single seed, so intervals and p tell of these students on other trips, not of other trainings"
        ]
    paired = sorted(mine.seeds) == sorted(theirs.seeds)
    least = least_p(*sizes, paired)
    corrected = min(1.0, least * tests) if method.correction == "holm" else least
    said = f"{mine.name} - {theirs.name}: with {sizes[0]} and {sizes[1]} seeds no test over trainings gives p below"
    if least > LEVEL:
        enough = next(n for n in range(2, 99) if least_p(n, n, paired) <= LEVEL)
        return [f"{said} {least:.2g}: they cannot be significant at {LEVEL}, {enough} seeds an arm could"]
    return [f"{said} {corrected:.2g} after correction for {tests} figures"] if corrected > LEVEL else []
