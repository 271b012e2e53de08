"""Tests of differences, their sizes, and the correction for testing many."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control, mannwhitneyu, rankdata, wilcoxon

from trainer.data.roadmap import Floats

LEVEL = 0.05


def signed_rank(differences: Floats) -> float | None:
    """p of Wilcoxon's signed-rank test (1945), two-sided, differences of zero left out. None without any value.

    Exact for up to 50 differences without ties, else by the normal approximation, as scipy has it.
    """
    nonzero = differences[differences != 0]
    if not len(differences):
        return None
    return float(wilcoxon(nonzero).pvalue) if len(nonzero) else 1.0


def rank_biserial(differences: Floats) -> float | None:
    """Matched-pairs rank-biserial correlation (Kerby 2014), -1..1: the signed ranks' sum over all ranks' sum."""
    nonzero = differences[differences != 0]
    if not len(differences):
        return None
    ranks = rankdata(np.abs(nonzero))
    return float((np.sign(nonzero) * ranks).sum() / ranks.sum()) if len(nonzero) else 0.0


def cliffs_delta(mine: Floats, theirs: Floats) -> float:
    """Share of pairs in which mine is greater minus share in which it is less (Cliff 1993), -1..1."""
    return float(np.sign(mine[:, None] - theirs[None, :]).mean())


def seeds_test(mine: Floats, theirs: Floats, paired: bool) -> float | None:
    """p over trainings: signed ranks where seeds are partners, else Mann and Whitney's test; None for a single seed."""
    if min(len(mine), len(theirs)) < 2:
        return None
    if paired:
        return signed_rank(mine - theirs)
    return float(mannwhitneyu(mine, theirs, method="auto").pvalue)


def least_p(mine: int, theirs: int, paired: bool) -> float:
    """The smallest p that `seeds_test` can give with so many seeds."""
    return 2 / 2**mine if paired else 2 / math.comb(mine + theirs, mine)


def centred(drawn: Floats, observed: float) -> float:
    """p that a bootstrap gives: how often a draw lies as far from what was observed as that lies from zero."""
    known = drawn[~np.isnan(drawn)]
    return float((1 + (np.abs(known - observed) >= abs(observed)).sum()) / (1 + len(known)))


def corrected(values: Sequence[float | None], method: str) -> list[float | None]:
    """Values of p corrected for their number; those that are None stay so and do not count.

    `holm`: no false find among all with the level's probability (Holm 1979); `bh`: no more than the level's share of
    the finds are false, on average (Benjamini and Hochberg 1995).
    """
    known = np.array([value for value in values if value is not None])
    if len(known):
        known = _holm(known) if method == "holm" else false_discovery_control(known, method="bh")
    found = iter(known.tolist())
    return [None if value is None else next(found) for value in values]


def _holm(values: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    result = np.empty_like(values)
    result[order] = np.minimum(stepped, 1.0)
    return result
