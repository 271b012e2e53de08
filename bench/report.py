"""`python -m bench.report`: how long `trainer report` takes for two runs of 5,000 trips, and how large its page is.

The runs are made up: training curves of 5,000 lines, and as generated trips real ones of another split, in one of the
runs without their last road. They are evaluated, so that the page compares them.
"""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from bench.city import DATA
from trainer.config import Config
from trainer.data.city import City
from trainer.data.prepare import prepare
from trainer.data.trip_text import format_times
from trainer.evaluate.cells import Cell
from trainer.evaluate.generated import judge_generated
from trainer.evaluate.stored import write_evaluation
from trainer.generate.output import COLUMNS
from trainer.generate.reading import read_generated
from trainer.run_folder import Origin, RunFolder


def main(
    trips: Annotated[int, typer.Option(min=1, help="Generated trips of each run.")] = 5000,
    runs: Annotated[int, typer.Option(min=1, help="Timed reports, after a first one.")] = 5,
    data: Annotated[Path, typer.Option(help="A folder in HOSER format.")] = DATA,
) -> None:
    """Measure whole commands, start of Python included."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        city = prepare(data, root / "cache", False).city
        made = [make_run(root / name, data, city, trips, left_out) for left_out, name in enumerate(("whole", "short"))]
        page = root / "report.html"
        words = [sys.executable, "-m", "trainer", "report", *made, "--out", page, "--cache", root / "cache"]
        seconds = [timed([str(word) for word in words]) for _ in range(runs + 1)]
        assert 'data-chart="comparison"' in page.read_text()
        print(
            f"{city.road_map.roads:,} roads, 2 x {trips:,} trips: {statistics.median(seconds[1:]):.1f} s "
            f"({min(seconds[1:]):.1f} to {max(seconds[1:]):.1f}; the first {seconds[0]:.1f}), "
            f"{page.stat().st_size / 1e6:.1f} MB"
        )


def make_run(root: Path, data: Path, city: City, count: int, left_out: int) -> Path:
    """A run's folder with the files that a report reads, but no student; `left_out`: roads at the end of each trip."""
    config = Config().plain()
    config["distill"]["lambda"] = 0.1 * left_out
    folder = RunFolder(root)
    folder.create(Origin(config, city.meta.fingerprint, "none"), config, {"data": str(data.resolve())})
    with folder.metrics.open("w") as stream:
        for step in range(5000):
            stream.write(json.dumps({"step": step, "loss_next_step": 2 * math.exp(-step / 900), "loss_kl": 0.3}) + "\n")
    source = city.trips["train"]
    with folder.generated.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in range(count):
            trip = row % len(source)
            roads, times = source.roads_of(trip).tolist(), format_times(source.times_of(trip))
            end = max(len(roads) - left_out, 1)
            route = json.dumps(roads[:end]), json.dumps(times[:end])
            writer.writerow((roads[0], roads[-1], trip, times[0], *route, not left_out, -9.5, 40))
    folder.generated.with_suffix(".json").write_text(json.dumps({"od": "train", "search": "best-first"}))
    found = read_generated(folder.generated, city.road_map)
    figures, entries = judge_generated(folder.generated, found, city, "test", Cell(0.001))
    about = {"split": "test", "data_fingerprint": city.meta.fingerprint}
    write_evaluation(folder.evaluation, about | figures, entries)
    return root


def timed(words: list[str]) -> float:
    start = time.perf_counter()
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert re.search(r"2 runs", said)
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
