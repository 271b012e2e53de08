"""What a whole training run costs with and without its teacher, as the runs' own summaries say.

    python -m bench.training --device cuda         # San Francisco, a teacher of 8 x 768 on the same device

Each run is `trainer train` as a process, for some epochs of batches of 128: undistilled, the teacher asked in turn,
asked ahead, and with labels that are kept. The first epoch of a GPU run includes its warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench.city import CELL, DATA
from bench.engine import REAL, SMALL
from teacher_server.vocabulary import Grid as TeacherGrid
from tests.serving import serve, tiny_artifact
from trainer.data.prepare import prepare
from trainer.grid import Grid

WAYS = {
    "undistilled": ("--teacher", "none"),
    "asked": ("--set", "distill.keep_labels=false", "--set", "distill.prefetch=0"),
    "asked ahead": ("--set", "distill.keep_labels=false"),
    "first epoch, kept": (),
    "kept": ("--teacher", "labels"),
}


def run(out: Path, *words: str) -> dict[str, object]:
    """One row from the summary of a training run."""
    command = [sys.executable, "-m", "trainer", "train", "--out", str(out), *words]
    subprocess.run(command, check=True, stdout=sys.stderr)
    profile = json.loads((out / "summary.json").read_text())["profile"]
    shares = {part: found["share"] for part, found in profile["parts"].items()}
    return {name: profile[name] for name in ("samples_per_s", "step_seconds", "teacher_wait_share")} | {"parts": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", choices=("small", "real"), default="real", help="of the teacher")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--set", nargs="+", default=[], help="further settings of all runs")
    options = parser.parse_args()
    model = {"real": REAL, "small": SMALL}[options.size]
    settings = [f"optimizer_config.max_epoch={options.epochs}", "optimizer_config.batch_size=128", *options.set]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        city = prepare(options.data, folder / "cache").city
        grid = Grid.over(city.road_map.points, CELL)
        tiny_artifact(
            folder / "teacher", grid=TeacherGrid(**asdict(grid)), block_size=model.block_size, n_layer=model.n_layer,
            n_head=model.n_head, n_embd=model.n_embd, scale=0.02,
        )  # fmt: skip
        common = ["--data", str(options.data), "--cache", str(folder / "cache"), "--device", options.device]
        common += [word for each in settings for word in ("--set", each)]
        threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 2) // 2, 1))}
        with serve(folder / "teacher", "--device", options.device, env=threads) as server:
            for number in range(options.runs):
                for way in options.ways:
                    where = ["--labels", str(folder / f"labels-{number}"), "--teacher", f"grpc://{server.grpc}"]
                    out = folder / f"{number}-{way.replace(' ', '-')}"
                    print(json.dumps({"way": way} | run(out, *common, *where, *WAYS[way])), flush=True)


if __name__ == "__main__":
    main()
