"""Bootstrap over requests, the same draws for all runs, and over the seeds of an arm.

A draw takes as many requests as there are, with replacement (Efron 1979). All runs answer the drawn requests, so that
differences between them are paired. With several seeds an arm's runs are drawn likewise, each arm on its own, and the
arm's value is their mean: trips and trainings are two levels of chance. n requests, R runs, D draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import rel_entr

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints

AT_ONCE = 50  # draws; bounds memory


@dataclass(frozen=True)
class Draws:
    """How often each request is drawn; made anew each time, always the same."""

    requests: int
    count: int
    seed: int

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Which draws, and how often they have each request, [draws, n]."""
        rng = np.random.default_rng((self.seed, 0))
        shares = np.full(self.requests, 1 / self.requests)
        for begin in range(0, self.count, AT_ONCE):
            size = min(AT_ONCE, self.count - begin)
            counts = rng.multinomial(self.requests, shares, size=size)
            yield slice(begin, begin + size), counts.astype(np.float64)

    def of_seeds(self, runs: int, arm: int) -> Floats:
        """Weight of each of an arm's runs, [D, runs]; they sum to 1.

        Their distance from equal weights is stretched (Rao and Wu 1988): drawing anew from few runs would show only
        (runs - 1) / runs of their variance.
        """
        rng = np.random.default_rng((self.seed, 1, arm))
        if runs == 1:
            return np.ones((self.count, 1))
        drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=self.count) / runs
        return np.asarray(1 / runs + (drawn - 1 / runs) * np.sqrt(runs / (runs - 1)))

    def interval(self, values: Floats, confidence: float) -> tuple[float, float]:
        """Percentiles of what the draws gave, [D]."""
        low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)


def drawn_means(values: Floats, draws: Draws) -> Floats:
    """Means of [R, n] over the drawn requests, [R, D]. Requests that are NaN in a run count in none."""
    known = ~np.isnan(values).any(axis=0)
    filled = np.where(known, values, 0.0)
    found = np.full((len(values), draws.count), np.nan)
    for block, counts in draws.blocks():
        with np.errstate(invalid="ignore"):
            found[:, block] = (filled @ counts.T) / (counts @ known)
    return found


@dataclass(frozen=True)
class Histogram:
    """Of one run: how much each request adds to each bin, and the real trips' counts."""

    shares: csr_array  # [bins, n]
    real: Floats  # [bins]

    @classmethod
    def of(cls, bins: Ints, requests: Ints, n: int, real: Sequence[int] | NDArray[np.int64]) -> Histogram:
        """From an entry in bins and requests for every value."""
        ones = np.ones(len(bins))
        return cls(csr_array((ones, (bins, requests)), shape=(len(real), n)), np.asarray(real, np.float64))

    def divergence(self) -> float:
        """Of all requests, each once."""
        return float(_divergences(self.shares @ np.ones((self.shares.shape[1], 1)), self.real)[0])

    def drawn(self, draws: Draws) -> Floats:
        """The divergence of each draw's trips from all real ones, [D]."""
        found = np.empty(draws.count)
        for block, counts in draws.blocks():
            found[block] = _divergences(self.shares @ counts.T, self.real)
        return found


def _divergences(counts: Floats, real: Floats) -> Floats:
    """Jensen-Shannon divergences of columns, [bins, D], from one histogram; NaN where one has no entry."""
    with np.errstate(invalid="ignore"):
        p, q = counts / counts.sum(axis=0), (real / real.sum())[:, None]
    middle = (p + q) / 2
    return np.asarray(np.maximum((rel_entr(p, middle).sum(axis=0) + rel_entr(q, middle).sum(axis=0)) / 2, 0.0))
