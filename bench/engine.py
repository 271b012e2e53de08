"""Teacher engine alone, at real size, by compute type and window: speed, and distance from float32.

    python -m bench.engine --device cuda

The plain reference is what the issue with such teachers usually is: one left-to-right row per scored position,
the whole vocabulary's softmax, then a gather at the candidates. Needs torch and numpy only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from teacher_server.engine import DTYPES, Engine
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.packing import Floats, Packer, ScoreWork

REAL = ModelConfig(block_size=1024, vocab_size=51_663, n_layer=8, n_head=12, n_embd=768)
SMALL = ModelConfig(block_size=128, vocab_size=2_627, n_layer=4, n_head=4, n_embd=128)
SPECIALS = 3


def make_work(config: ModelConfig, trips: int, steps: int, window: int, seed: int = 0) -> ScoreWork:
    """Trips of `steps` positions, all scored, with 2 to 4 candidates each."""
    rng = np.random.default_rng(seed)
    cells = config.vocab_size - SPECIALS
    counts = rng.integers(2, 5, trips * steps)
    return ScoreWork(
        tokens=rng.integers(0, cells, trips * steps).astype(np.int32),
        lengths=np.full(trips, steps),
        scored=np.full(trips, steps),
        windows=np.full(trips, window),
        candidates=rng.integers(0, cells, int(counts.sum())).astype(np.int32),
        candidate_counts=counts,
    )


def engine_answer(engine: Engine, packer: Packer, work: ScoreWork) -> Floats:
    pack = packer.pack([packer.plan(work)])
    return pack.answers([engine.log_probs(batch) for batch in pack.batches])[0]


@torch.inference_mode()
def plain_answer(model: LMTAD, device: torch.device, work: ScoreWork, rows_at_once: int = 512) -> Floats:
    """One row a position, full softmax, gather, renormalise."""
    sot = model.config.vocab_size - 1
    starts = np.concatenate([[0], np.cumsum(work.lengths)])
    rows = []
    for trip, length in enumerate(work.lengths):
        tokens = work.tokens[starts[trip] : starts[trip] + length]
        window = work.windows[trip] or length
        rows += [np.concatenate([[sot], tokens[max(0, t + 1 - window) : t + 1]]) for t in range(length)]
    width = max(map(len, rows))
    table = torch.tensor(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))
    last = torch.tensor([len(row) - 1 for row in rows])
    answers, first = [], 0
    for start in range(0, len(rows), rows_at_once):
        part = slice(start, start + rows_at_once)
        hidden = model(table[part].to(device))
        at = hidden[torch.arange(len(hidden)), last[part].to(device)]
        probs = model.logits(at).float().softmax(-1).cpu()
        for row, count in zip(probs, work.candidate_counts[part], strict=True):
            chosen = row[torch.from_numpy(work.candidates[first : first + count]).long()]
            answers.append((chosen / chosen.sum()).log().numpy())
            first += int(count)
    return np.concatenate(answers)


def seconds(call: Callable[[], object], runs: int) -> list[float]:
    call()  # warm-up
    found = []
    for _ in range(runs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=("small", "real"), default="real")
    parser.add_argument("--trips", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--budget", type=int, default=65_536, help="padded tokens a batch")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    options = parser.parse_args()
    config, device = {"small": SMALL, "real": REAL}[options.size], torch.device(options.device)
    torch.manual_seed(0)
    model = LMTAD(config).eval()
    model.initialise(torch.Generator().manual_seed(0))
    state = model.state_dict()
    packer = Packer(config.block_size, config.vocab_size - 1, config.vocab_size - 3, options.budget)
    for window in (0, 7, 4):
        work = make_work(config, options.trips, options.steps, window)
        positions = options.trips * options.steps
        plain = LMTAD(config).eval().to(device)
        plain.load_state_dict(state)
        reference = plain_answer(plain, device, work)
        slow = seconds(lambda plain=plain, work=work: plain_answer(plain, device, work), options.runs)
        for name in options.dtypes:
            copy = LMTAD(config)
            copy.load_state_dict(state)
            engine = Engine(copy, device, DTYPES[name])
            error = float(np.abs(engine_answer(engine, packer, work) - reference).max())
            fast = seconds(lambda e=engine, work=work: engine_answer(e, packer, work), options.runs)
            row = {
                "window": window or "full",
                "dtype": name,
                "positions_per_s": round(positions / statistics.median(fast)),
                "median_ms": round(1000 * statistics.median(fast), 2),
                "spread_ms": [round(1000 * min(fast), 2), round(1000 * max(fast), 2)],
                "plain_ms": round(1000 * statistics.median(slow), 1),
                "times_plain": round(statistics.median(slow) / statistics.median(fast), 1),
                "max_error": error,
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
