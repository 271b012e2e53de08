"""Likelihoods of whole trips over the full vocabulary: ours against one trip at a time, and against the score alone.

    python -m bench.likelihood              # real size; or: --size small --trips 2048

Plain: a forward pass and a log-softmax over all tokens for each trip, its sum in float64. Ours: what the server does
with one request, cut to a CPU server's batches. Both in turn in one process, on train trips of San Francisco, each of
which is whole. `memory`: by how much the process grew, at most, during a run of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.city import City
from bench.engine import REAL, SMALL
from teacher_server.engine import BATCH_TOKENS, Engine
from teacher_server.fit.likelihood import likelihood
from teacher_server.fit.tokens import Trips
from teacher_server.model import LMTAD
from teacher_server.packing import Packer, answer_works
from teacher_server.trips import TripWork, sums_of_trips
from teacher_server.vocabulary import SpecialTokens

SIZES = {"real": REAL, "small": SMALL}
Sums = NDArray[np.float64]


class Subject:
    """A random teacher and some trips."""

    def __init__(self, size: str, count: int) -> None:
        self.config = SIZES[size]
        self.special = SpecialTokens.after(self.config.vocab_size - 3)
        self.model = LMTAD(self.config)
        self.model.initialise(torch.Generator().manual_seed(0))
        self.model.eval().requires_grad_(False)
        self.engine = Engine(self.model, torch.device("cpu"), torch.float32)
        self.packer = Packer(self.config.block_size, self.special.sot, self.special.pad, BATCH_TOKENS["cpu"])
        city = City(trips=count)
        self.trips = [(city.cells[trip] % (self.config.vocab_size - 3)).astype(np.int32) for trip in city.trips]
        self.tokens = sum(map(len, self.trips)) + len(self.trips)

    @torch.inference_mode()
    def plain(self) -> Sums:
        sums = []
        for trip in self.trips:
            row = torch.tensor([[self.special.sot, *trip, self.special.eot]])
            log_probs = self.model.logits(self.model(row[:, :-1])).log_softmax(-1)
            sums.append(log_probs.gather(2, row[:, 1:, None]).double().sum().item())
        return np.array(sums)

    def evaluate(self) -> Sums:
        """What `teacher evaluate` does: rows of like lengths, padded."""
        return -likelihood(self.model, Trips.of(self.trips), self.special).nll

    def ours(self) -> Sums:
        asked = TripWork(np.concatenate(self.trips), np.array([len(trip) for trip in self.trips]))
        work = asked.score_work(self.config.block_size, self.special.eot)
        return sums_of_trips(answer_works([work], self.packer, self.engine.log_probs)[0], work.scored)


def timed(way: Callable[[], Sums]) -> float:
    begun = time.perf_counter()
    way()
    return time.perf_counter() - begun


def compare(size: str, count: int, runs: int) -> dict[str, object]:
    subject = Subject(size, count)
    ways = {"plain": subject.plain, "evaluate": subject.evaluate, "ours": subject.ours}
    expected = subject.plain()
    for name, way in ways.items():
        np.testing.assert_allclose(way(), expected, rtol=1e-5, err_msg=name)
    seconds = {name: [] for name in ways}  # type: dict[str, list[float]]
    for _ in range(runs):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"], strict=True)]
    return {
        "size": size,
        "trips": count,
        "tokens": subject.tokens,
        "tokens_per_s": {name: round(subject.tokens / statistics.median(taken)) for name, taken in seconds.items()},
        "ratio": [round(ratio, 2) for ratio in (statistics.median(ratios), min(ratios), max(ratios))],
        "memory_mib": {name: _memory(size, count, name) for name in ways},
    }


def _memory(size: str, count: int, way: str) -> int:
    """In a process of its own."""
    words = [sys.executable, "-m", "bench.likelihood", "--size", size, "--trips", str(count), "--grow", way]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def grown(size: str, count: int, way: str) -> int:
    """MiB at most above what the process held before."""
    subject = Subject(size, count)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from now on the high-water mark is of what comes
    getattr(subject, way)()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="real")
    parser.add_argument("--trips", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--grow", choices=("plain", "evaluate", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.grow:
        print(grown(options.size, options.trips, options.grow))
    else:
        print(json.dumps(compare(options.size, options.trips, options.runs), indent=1))


if __name__ == "__main__":
    main()
