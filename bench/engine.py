"""Teacher engine at real size on real trips: speed by compute type and window, and distance from float32.

    python -m bench.engine            # or: --device cuda --dtypes float16 bfloat16

The plain reference is what the research code does: a row of SOT and the last 7 tokens for every step, the head at
every token, the whole vocabulary's softmax at the last one, a gather at the candidates, renormalised; in float32. All
ways run in turn in one process. Needs torch and numpy only, and the project's shared folder beside the checkout.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from bench.city import City
from teacher_server.engine import DTYPES, Engine
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.packing import PackedBatch, Packer, answer_works
from teacher_server.rows import Floats, ScoreWork

REAL = ModelConfig(block_size=1024, vocab_size=51_663, n_layer=8, n_head=12, n_embd=768)
SMALL = ModelConfig(block_size=256, vocab_size=12_700, n_layer=4, n_head=4, n_embd=128)
WINDOW = 7


@torch.inference_mode()
def plain_answer(model: LMTAD, work: ScoreWork, rows_at_once: int = 256) -> Floats:
    """One row a position, the head at every token, full softmax, gather, renormalise."""
    device = model.lm_head.weight.device
    sot = model.config.vocab_size - 1
    rows = []
    for history, window in zip(np.split(work.tokens, np.cumsum(work.lengths)[:-1]), work.windows, strict=True):
        rows += [[sot, *history[max(0, t + 1 - window) : t + 1]] for t in range(len(history))]
    width = max(map(len, rows))
    table = torch.tensor(np.array([row + [0] * (width - len(row)) for row in rows]))
    last = torch.tensor([len(row) - 1 for row in rows])
    candidates = np.split(work.candidates, np.cumsum(work.candidate_counts)[:-1])
    answers = []
    for start in range(0, len(rows), rows_at_once):
        part = slice(start, start + rows_at_once)
        logits = model.logits(model(table[part].to(device)))
        probs = logits[torch.arange(len(logits)), last[part].to(device)].float().softmax(-1).cpu()
        for row, cells in zip(probs, candidates[part], strict=True):
            chosen = row[torch.from_numpy(cells).long()]
            answers.append((chosen / chosen.sum()).log().numpy())
    return np.concatenate(answers)


def trunk_flops(batch: PackedBatch, config: ModelConfig) -> float:
    """Of the matrix products that the batch needs, attention left out: 12 D^2 multiply-adds a node and layer."""
    square = 2 * config.n_embd**2
    return square * (batch.nodes * (12 * (config.n_layer - 1) + 2) + len(batch.reads) * 10)


def gemm_rate(device: torch.device, dtype: torch.dtype, config: ModelConfig) -> float:
    """FLOP/s of the model's largest product alone, the best of ten."""
    x, weight = torch.randn(4096, config.n_embd), torch.randn(4 * config.n_embd, config.n_embd)
    x, weight = x.to(device, dtype), weight.to(device, dtype)
    return 2 * 4 * 4096 * config.n_embd**2 / min(seconds(lambda: F.linear(x, weight)) for _ in range(11))


def seconds(call: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=("small", "real"), default="real")
    parser.add_argument("--trips", type=int, default=256, help="a batch")
    parser.add_argument("--plain-trips", type=int, default=16, help="of them, for the plain reference")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--budget", type=int, default=131_072, help="row tokens a batch")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(DTYPES))
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    config, device = {"small": SMALL, "real": REAL}[options.size], torch.device(options.device)
    city = City()
    model = LMTAD(config).eval().requires_grad_(False)
    model.initialise(torch.Generator().manual_seed(0))
    packer = Packer(config.block_size, config.vocab_size - 1, config.vocab_size - 3, options.budget, options.compile)
    few = city.work(0, options.plain_trips, WINDOW)
    plain = copy.deepcopy(model).to(device)
    engines = {name: Engine(copy.deepcopy(model), device, DTYPES[name], options.compile) for name in options.dtypes}
    ways: dict[str, tuple[ScoreWork, Callable[[], Floats]]] = {"plain": (few, lambda: plain_answer(plain, few))}
    for window in (WINDOW, 0):
        work = city.work(0, options.trips, window)
        for name, engine in engines.items():
            ways[f"{window or 'full'} {name}"] = (
                work,
                lambda engine=engine, work=work: answer_works([work], packer, engine.log_probs)[0],
            )
    for _, way in ways.values():
        way()  # warm-up
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.runs):
        for name, (_, way) in ways.items():
            taken[name].append(seconds(way))
    rates = {name: [len(work.candidate_counts) / s for s in taken[name]] for name, (work, _) in ways.items()}
    expected = {window: plain_answer(plain, city.work(0, 4, window or 1024)) for window in (WINDOW, 0)}
    print(json.dumps({"way": "plain", "positions_per_s": round(statistics.median(rates["plain"]), 1)}))
    for name, (work, _) in list(ways.items())[1:]:
        window, dtype = name.split()
        engine = engines[dtype]
        ratios = [ours / theirs for ours, theirs in zip(rates[name], rates["plain"], strict=True)]
        batches = [packer.pack([part]) for part in packer.plan(work).parts(options.budget)]
        trunk = [sum(trunk_flops(batch, config) for batch in batches) / s for s in taken[name]]
        few_of_it = answer_works([city.work(0, 4, int(window.replace("full", "0")))], packer, engine.log_probs)[0]
        row = {
            "window": window,
            "dtype": dtype,
            "positions_per_s": round(statistics.median(rates[name])),
            "times_plain": round(statistics.median(ratios), 1),
            "spread": [round(min(ratios), 1), round(max(ratios), 1)],
            "row_tokens": sum(batch.row_tokens for batch in batches),
            "computed_tokens": sum(batch.nodes for batch in batches),
            "gflops": round(statistics.median(trunk) / 1e9),
            "of_gemm_rate": round(statistics.median(trunk) / gemm_rate(device, DTYPES[dtype], config), 2),
            "max_error": float(np.abs(few_of_it - expected[int(window.replace("full", "0"))]).max()),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
