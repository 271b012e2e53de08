"""`trainer generate`: routes from a trained student."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer

from trainer import __version__
from trainer.assemble import load_trained, pick_device
from trainer.commands.data import Cache, SkipBad
from trainer.commands.load import run_data
from trainer.data.features import Network
from trainer.errors import BadInput
from trainer.files import digest_of
from trainer.generate.demand import draw_demand, read_demand
from trainer.generate.expander import StepTimes
from trainer.generate.journal import Journal, open_journal
from trainer.generate.output import check_target, write_generated
from trainer.generate.route import Found
from trainer.generate.search import KINDS, SearchSettings
from trainer.generate.workers import Recipe, finding
from trainer.progress_line import progress_bar
from trainer.run_folder import RunFolder


def generate_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    data: Annotated[Path | None, typer.Option(help="Data folder (default: the one the run was trained on).")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write (default: generated.csv in the run).")] = None,
    count: Annotated[int, typer.Option(min=1, help="Trips to generate.")] = 500,
    od: Annotated[str, typer.Option(help="Draw origins and destinations from this split: train or test.")] = "test",
    od_file: Annotated[
        Path | None,
        typer.Option(help="CSV with origin_road_id, destination_road_id, source_origin_time, instead of --od."),
    ] = None,
    kind: Annotated[str, typer.Option("--search", help=f"One of {', '.join(KINDS)}.")] = "best-first",
    beam_width: Annotated[int, typer.Option(min=1, help="Paths kept by the beam.")] = 4,
    max_expansions: Annotated[int, typer.Option(min=1, help="Roads expanded before a search gives up.")] = 5000,
    temperature: Annotated[
        float | None, typer.Option(help="Of `sample`: below 1 towards the most probable roads (default: 1).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of trips and of `sample`.")] = 0,
    cache: Cache = None,
    skip_bad: SkipBad = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that search (default: one a core); the routes do not depend on it."),
    ] = None,
    cpu_threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
) -> None:
    """Generate routes between origins and destinations with a trained student.

    A run that was killed goes on when the same command is given again.
    """
    settings = _settings(kind, max_expansions, beam_width, seed, temperature)
    if od not in ("train", "test"):
        raise BadInput(f"--od must be train or test, not {od!r}")
    torch.set_num_threads(cpu_threads)
    folder = RunFolder(run)
    target = out or folder.generated
    if out:
        check_target(out)
    city = run_data(folder, data, cache, skip_bad).city
    student, config, card = load_trained(folder.best, city)
    demand = read_demand(od_file, city.road_map.roads) if od_file else draw_demand(city.trips[od], count, seed)
    recipe = Recipe(
        student,
        Network.of(city.road_map),
        StepTimes(card.log1p_mean, card.log1p_std),
        config.trajectory_encoder_config.max_len,
        config.data.angle,
        demand,
        settings,
        pick_device(device),
        cpu_threads,
    )
    made_by = {
        "model_digest": digest_of(folder.best),
        "data_fingerprint": city.meta.fingerprint,
        "demand_digest": demand.digest,
        **_about_search(settings),
        "device": recipe.device.type,
        "version": __version__,
    }
    with open_journal(target.with_name(f"{target.name}.unfinished"), made_by) as journal:
        figures = _find_all(recipe, workers or _cores(recipe), journal)
        found = [journal.found[index] for index in range(len(demand))]
        about = made_by | _outcome(found) | performance(found) | figures
        about |= {"trained_on": card.data_fingerprint, "teacher_digest": card.teacher_digest}
        about |= {"od": od_file.name if od_file else od, "seed": seed}
        write_generated(target, demand, [trip.route for trip in found], about)
        journal.done()
    print(
        f"{target}: {len(found)} trips, {about['reached']} reached their destination, "
        f"{about['expansions_mean']:.1f} expansions a trip, {about['throughput_traj_per_sec']:.1f} trips/s"
    )


def _settings(kind: str, most: int, width: int, seed: int, temperature: float | None) -> SearchSettings:
    if kind not in KINDS:
        raise BadInput(f"--search must be one of {', '.join(KINDS)}, not {kind!r}")
    if temperature is not None and kind != "sample":
        raise BadInput(f"--temperature is for --search sample, not for {kind}")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise BadInput(f"--temperature must be greater than 0 and finite, not {temperature}")
    return SearchSettings(kind, most, width, seed, temperature or 1.0)


def _about_search(settings: SearchSettings) -> dict[str, Any]:
    """Those settings that make a difference."""
    about: dict[str, Any] = {"search": settings.kind, "max_expansions": settings.max_expansions}
    if settings.kind == "beam":
        about["beam_width"] = settings.beam_width
    if settings.kind == "sample":
        about |= {"seed": settings.seed, "temperature": settings.temperature}
    return about


def _find_all(recipe: Recipe, workers: int, journal: Journal) -> dict[str, Any]:
    """Finds what the journal lacks."""
    before, begun = len(journal.found), perf_counter()
    missing = [index for index in range(len(recipe.demand)) if index not in journal.found]
    if missing:
        title, total = f"generate ({recipe.settings.kind})", len(recipe.demand)
        with (
            finding(workers, recipe, missing) as trips,
            progress_bar(title, total, before, unit=" trips", leave=False) as bar,
        ):
            for found in trips:
                journal.add(found)
                bar.update()
    seconds = perf_counter() - begun
    costs = sum(found.cost.seconds for found in journal.found.values())
    rate = len(missing) / seconds if missing else before / costs if costs else 0.0  # no time: already there
    return {"workers": workers, "resumed_trips": before, "throughput_traj_per_sec": rate}


def _cores(recipe: Recipe) -> int:
    """A process for each core, or for the only GPU."""
    return max(len(os.sched_getaffinity(0)) // recipe.threads, 1) if recipe.device.type == "cpu" else 1


def _outcome(found: list[Found]) -> dict[str, Any]:
    return {
        "trips": len(found),
        "reached": sum(trip.route.reached for trip in found),
        "expansions_mean": sum(trip.route.expansions for trip in found) / len(found),
    }


def performance(found: list[Found]) -> dict[str, float]:
    """Seconds and rounds a trip (see Cost), under the research code's names."""
    total = np.array([trip.cost.seconds for trip in found])
    forward = np.array([trip.cost.forward_seconds for trip in found])
    count = np.array([trip.cost.forwards for trip in found])
    figures = {f"total_time_{name}": getattr(total, name)() for name in ("mean", "std", "min", "max")}
    figures |= {"total_time_median": np.median(total), "total_time_p95": np.percentile(total, 95)}
    figures |= {f"forward_time_{name}": getattr(forward, name)() for name in ("mean", "std")}
    figures |= {f"forward_count_{name}": getattr(count, name)() for name in ("mean", "std")}
    return {name: float(value) for name, value in figures.items()}
