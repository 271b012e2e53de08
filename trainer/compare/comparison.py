"""Arms against a baseline, figure by figure: differences, intervals, effects, tests, and what these cannot tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainer.compare import significance
from trainer.compare.arms import Arm
from trainer.compare.bootstrap import Draws, drawn_means
from trainer.compare.figures import BETTER_HIGH, OF_RUNS, OF_SETS, OF_TRIPS, RunFigures
from trainer.compare.significance import cliffs_delta, rank_biserial, seeds_test, signed_rank
from trainer.data.roadmap import Floats


@dataclass(frozen=True)
class Row:
    """One figure of one arm against the baseline; None where something cannot be told."""

    arm: str
    baseline: str
    figure: str
    level: str  # what it is a figure of: "trip", "set" or "run"
    better: str  # "higher" or "lower"
    n: int | None  # requests that count: those with an entry in all runs of both arms
    differing: int | None  # those of them that differ between the arms' means
    mine: float | None  # mean over the arm's runs
    theirs: float | None
    difference: float | None  # mine - theirs
    low: float | None = None  # ends of the interval
    high: float | None = None
    effect: float | None = None
    effect_kind: str | None = None  # "rank-biserial" over requests or "cliffs-delta" over runs
    test: str | None = None  # "wilcoxon" over requests or "bootstrap"
    p: float | None = None  # given these trained students
    p_corrected: float | None = None
    p_seeds: float | None = None  # over trainings
    p_seeds_corrected: float | None = None


@dataclass(frozen=True)
class Method:
    """How arms are compared."""

    draws: Draws
    confidence: float
    correction: str


@dataclass(frozen=True)
class Pair:
    """An arm and the baseline, with the place of each among all arms."""

    mine: Arm
    theirs: Arm
    places: tuple[int, int]
    figures: dict[str, RunFigures]  # by folder

    @property
    def paired(self) -> bool:
        """Whether each training has a partner of the same seed in the other arm."""
        return sorted(self.mine.seeds) == sorted(self.theirs.seeds)

    def sides(self) -> tuple[list[RunFigures], list[RunFigures]]:
        """Runs in the order of their seeds, so that partners stand in the same place."""
        mine, theirs = (
            [self.figures[str(run.folder)] for run in sorted(arm.runs, key=lambda run: run.seed)]
            for arm in (self.mine, self.theirs)
        )
        return mine, theirs

    def row(self, method: Method, name: str, level: str, values: tuple[Floats, Floats], drawn: Floats | None) -> Row:
        """What all levels have in common: `values` of the runs of both arms, `drawn` differences, [D]."""
        mine, theirs = (float(each.mean()) for each in values)
        low, high = method.draws.interval(drawn, method.confidence) if drawn is not None else (None, None)
        several = min(map(len, values)) > 1
        return Row(
            arm=self.mine.name,
            baseline=self.theirs.name,
            figure=name,
            level=level,
            better="higher" if name in BETTER_HIGH else "lower",
            n=None,
            differing=None,
            mine=mine,
            theirs=theirs,
            difference=mine - theirs,
            low=low,
            high=high,
            effect=cliffs_delta(*values) if several else None,
            effect_kind="cliffs-delta" if several else None,
            p_seeds=seeds_test(*values, self.paired),
        )

    def arms_differ(self, draws: Draws, mine: Floats, theirs: Floats) -> Floats:
        """Drawn differences, [D], of what the draws gave for the runs of both, [runs, D]."""
        weights = [draws.of_seeds(len(each), place) for each, place in zip((mine, theirs), self.places, strict=True)]
        return np.asarray((weights[0].T * mine).sum(axis=0) - (weights[1].T * theirs).sum(axis=0))


def compare(arms: Sequence[Arm], baseline: Arm, figures: dict[str, RunFigures], method: Method) -> list[Row]:
    """All rows of all arms but the baseline, corrected together for their number."""
    rows: list[Row] = []
    for place, arm in enumerate(arms):
        if arm is not baseline:
            pair = Pair(arm, baseline, (place, list(arms).index(baseline)), figures)
            rows += [*_of_trips(pair, method), *_of_sets(pair, method), *_of_runs(pair, method)]
    alone = significance.corrected([row.p for row in rows], method.correction)
    over_seeds = significance.corrected([row.p_seeds for row in rows], method.correction)
    return [replace(row, p_corrected=p, p_seeds_corrected=q) for row, p, q in zip(rows, alone, over_seeds, strict=True)]


def _of_trips(pair: Pair, method: Method) -> Iterator[Row]:
    sides = pair.sides()
    if not method.draws.requests:
        return
    for name in OF_TRIPS:
        if not all(run.knows(name) for side in sides for run in side):
            continue
        mine, theirs = (np.stack([run.of_trips(name) for run in side]) for side in sides)
        known = ~np.isnan(np.concatenate([mine, theirs])).any(axis=0)
        if not known.any():
            yield _nothing(pair, name, "trip")
            continue
        drawn = drawn_means(np.concatenate([mine, theirs]), method.draws)
        values = mine[:, known].mean(axis=1), theirs[:, known].mean(axis=1)
        differences = mine[:, known].mean(axis=0) - theirs[:, known].mean(axis=0)
        row = pair.row(method, name, "trip", values, pair.arms_differ(method.draws, *np.split(drawn, [len(mine)])))
        yield replace(
            row,
            n=int(known.sum()),
            differing=int(np.count_nonzero(differences)),
            effect=rank_biserial(differences),
            effect_kind="rank-biserial",
            test="wilcoxon",
            p=signed_rank(differences),
        )


def _of_sets(pair: Pair, method: Method) -> Iterator[Row]:
    if not method.draws.requests:
        return
    for name in OF_SETS:
        found = [[run.of_set(name, method.draws) for run in side] for side in pair.sides()]
        mine, theirs = (np.array([value for value, _ in side]) for side in found)
        if np.isnan([*mine, *theirs]).any():
            yield _nothing(pair, name, "set")
            continue
        drawn = pair.arms_differ(method.draws, *(np.stack([each for _, each in side]) for side in found))
        # A draw has some trips twice and others not, so it lies a little farther from the real ones than all trips do.
        observed = float(mine.mean() - theirs.mean())
        drawn += observed - np.nanmean(drawn)
        row = pair.row(method, name, "set", (mine, theirs), drawn)
        yield replace(row, n=method.draws.requests, test="bootstrap", p=significance.centred(drawn, observed))


def _of_runs(pair: Pair, method: Method) -> Iterator[Row]:
    for name in OF_RUNS:
        mine, theirs = (np.array([run.of_run(name) for run in side]) for side in pair.sides())
        if np.isnan([*mine, *theirs]).any():
            yield _nothing(pair, name, "run")
            continue
        several = min(len(mine), len(theirs)) > 1
        drawn = pair.arms_differ(method.draws, mine[:, None], theirs[:, None]) if several else None
        yield pair.row(method, name, "run", (mine, theirs), drawn)


def _nothing(pair: Pair, name: str, level: str) -> Row:
    better, n = "higher" if name in BETTER_HIGH else "lower", 0 if level == "trip" else None
    return Row(pair.mine.name, pair.theirs.name, name, level, better, n, n, None, None, None)
